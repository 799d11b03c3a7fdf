# Source this before mpirun: ". jobs/environment.sh".  What is set already stays.
# Open MPI 4 reads OMPI_MCA_*, version 5 also PRTE_MCA_*; each ignores what it does not know.
# shellcheck shell=sh

if [ "$(id -u)" = 0 ]; then
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
fi

# More ranks than cores are welcome, and no rank is tied to one core: by default two ranks or fewer are, with all their threads.
export OMPI_MCA_rmaps_base_oversubscribe="${OMPI_MCA_rmaps_base_oversubscribe:-1}"
export PRTE_MCA_rmaps_default_mapping_policy="${PRTE_MCA_rmaps_default_mapping_policy:-:oversubscribe}"
export OMPI_MCA_hwloc_base_binding_policy="${OMPI_MCA_hwloc_base_binding_policy:-none}"
export PRTE_MCA_hwloc_default_binding_policy="${PRTE_MCA_hwloc_default_binding_policy:-none}"

# Ranks that wait leave their core to those that work; containers forbid the system call behind single copies.
export OMPI_MCA_mpi_yield_when_idle="${OMPI_MCA_mpi_yield_when_idle:-1}"
export OMPI_MCA_btl_vader_single_copy_mechanism="${OMPI_MCA_btl_vader_single_copy_mechanism:-none}"

# The same for the threads of a rank: by default they spin, and where ranks x threads exceed the cores a job takes many times as long.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"

export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"

#!/usr/bin/env bash
# What the compiler cannot enforce of docs/architecture.md, docs/numerics.md and docs/style.md: layers, owners of libraries,
# arithmetic, long lines.
# check_layers.sh [ROOT]: prints each breach as file:line:text and ends with 1 if there is any.
set -euo pipefail
shopt -s globstar nullglob

cd "${1:-$(dirname "$0")/..}"
plain=$(mktemp -d)
trap 'rm -rf "$plain"' EXIT
breaches=0

# Without comments and the contents of texts, so that greps meet code only; includes keep their path, continued lines are joined.
# ref64 (what only QD_REAL64 compiles) is double arithmetic for tests and may use libm: it is left out.
strip='
  undef $/;
  for my $path (@ARGV) {
    open my $in, "<", $path or die "$path: $!";
    my $text = <$in>;
    $text =~ s{(/\*.*?\*/|//[^\n]*)|("(?:\\.|[^"\\\n])*"|\x27(?:\\.|[^\x27\\\n])*\x27)}
              {defined $1 ? "\n" x ($1 =~ tr/\n//) || " " : $2}gse;
    1 while $text =~ s{^([^\n]*)\\\n([^\n]*)\n}{$1 $2\n\n}m;
    my ($out, @kept) = ("");
    for my $line (split /\n/, $text) {
      if ($line =~ /^\s*#\s*if/) { push @kept, $line =~ /QD_REAL64/ && $line !~ /ifndef|!/ ? 0 : 1; }
      elsif ($line =~ /^\s*#\s*el/ && @kept) { $kept[-1] = 1; }
      elsif ($line =~ /^\s*#\s*endif/) { pop @kept; }
      $line =~ s/"(?:\\.|[^"\\])*"/""/g unless $line =~ /^\s*#\s*include/;
      $out .= (grep { !$_ } @kept) ? "\n" : "$line\n";
    }
    my $to = "$ENV{PLAIN}/$path";
    (my $folder = $to) =~ s{/[^/]*$}{};
    system("mkdir", "-p", $folder) unless -d $folder;
    open my $file, ">", $to or die "$to: $!";
    print $file $out;
  }'
sources=({kernels,storage,workers,pipeline,jobs,tests}/**/*.[ch] {kernels,storage,workers,pipeline,jobs}/**/*.def)
[ ${#sources[@]} -gt 0 ] || { echo "check_layers: no sources in $PWD" >&2; exit 1; }
PLAIN=$plain perl -e "$strip" "${sources[@]}"

product=(kernels storage workers pipeline jobs)
none='-'

# breach SENTENCE LINES: report what was found, if anything.
breach() {
  [ -n "$2" ] || return 0
  printf '%s:\n%s\n' "$1" "$(sed 's/^/  /' <<<"$2")"
  breaches=$((breaches + 1))
}

# find_lines PATTERN ALLOWED FOLDER...: lines of code that match PATTERN, in files whose path does not match ALLOWED.
find_lines() {
  local pattern=$1 allowed=$2
  shift 2
  (cd "$plain" && { grep -rnE -- "$pattern" "$@" 2>/dev/null || true; } | { grep -vE "^($allowed):" || true; })
}

include() { printf '^[[:space:]]*#[[:space:]]*include[[:space:]]*[<"]%s' "$1"; }

# ---- who may know which library
breach "MPI is the business of workers/ alone" "$(find_lines "$(include 'mpi\.h')" 'workers/[^:]*' "${product[@]}")"
breach "HDF5 is the business of storage/h5* alone" "$(find_lines "$(include 'hdf5')" 'storage/h5[^/:]*' "${product[@]}")"
breach "zstd is the business of storage/ alone" "$(find_lines "$(include 'zstd')" 'storage/[^:]*' "${product[@]}")"
breach "jansson is the business of storage/json.c alone" "$(find_lines "$(include 'jansson')" 'storage/json\.c' "${product[@]}")"
breach "libyaml is the business of storage/config_file.c alone" \
  "$(find_lines "$(include 'yaml\.h')" 'storage/config_file\.c' "${product[@]}")"
breach "PCRE2, utf8proc, zlib and xxHash are the business of storage/ alone" \
  "$(find_lines "$(include '(pcre2|utf8proc|zlib|xxhash|xxh3)')" 'storage/[^:]*' "${product[@]}")"
breach "threads of our own are the business of kernels/base/task (storage/h5.c guards HDF5 against them)" \
  "$(find_lines "$(include 'pthread\.h')" '(kernels/base/task|storage/h5)\.[ch]' "${product[@]}")"

# ---- arrows between the layers; paths from the root
layer() { # layer FOLDER ALLOWED
  breach "$1/ includes only from $2" "$(find_lines '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$none" "$1" \
    | { grep -vE "include[[:space:]]*\"($2)/" || true; })"
}
layer kernels 'kernels'
layer storage 'storage|kernels'
layer workers 'workers|kernels'
layer pipeline 'pipeline|storage|workers|kernels'
layer jobs 'jobs|pipeline|storage|workers|kernels'
layer tests 'tests|jobs|pipeline|storage|workers|kernels'

# ---- memory, the end of the process, the terminal (HDF5 itself frees what a filter gives it)
breach "memory comes from kernels/base/heap.h or an arena" \
  "$(find_lines '\b(malloc|calloc|realloc|reallocarray|free|strdup|strndup|asprintf|vasprintf|aligned_alloc|posix_memalign|alloca)[[:space:]]*\(' \
    '(kernels/base/[^:]*|storage/h5_plugin\.c)' "${product[@]}")"
breach "only jobs/ ends the process, and a failed QD_ASSERT" \
  "$(find_lines '\b(exit|_exit|_Exit|quick_exit|abort)[[:space:]]*\(' '(jobs/[^:]*|kernels/base/status\.c)' "${product[@]}")"
breach "people are spoken to through kernels/base/log.h, or in jobs/" \
  "$(find_lines '(\b(printf|vprintf|puts|putchar|perror)[[:space:]]*\(|\b(stdout|stderr)\b)' '(kernels/base|jobs)/[^:]*' "${product[@]}")"

# ---- arithmetic: what would let a machine, a compiler or a library choose the bits
breach "approximations of 1/x and 1/sqrt(x) differ between processors" "$(find_lines '\b_mm[0-9]*_(mask_|maskz_)?(rcp|rsqrt)' "$none" "${product[@]}")"
breach "OpenMP chooses the order of a reduction's sum" \
  "$(find_lines '#[[:space:]]*pragma[[:space:]]+omp.*\breduction[[:space:]]*\([^:]*[-+*]' "$none" "${product[@]}")"
breach "MPI chooses the order of a sum: only integers may be summed by it" \
  "$(find_lines '\bMPI_(FLOAT|DOUBLE|LONG_DOUBLE|REAL[0-9]*|FLOAT_INT|DOUBLE_INT)\b' "$none" "${product[@]}")"
breach "fused multiply-adds are written, never contracted" "$(find_lines 'FP_CONTRACT[[:space:]]+ON' "$none" "${product[@]}")"
breach "optimization is the same for all files" "$(find_lines '(pragma[[:space:]]+GCC[[:space:]]+optimize|\boptimize[[:space:]]*\()' "$none" "${product[@]}")"
breach "libm's functions differ between versions: kernels/vecmath has ours" \
  "$(find_lines '(^|[^_.>[:alnum:]])(exp|exp2|exp10|expm1|log|log2|log10|log1p|sin|cos|tan|sincos|asin|acos|atan|atan2|sinh|cosh|tanh|asinh|acosh|atanh|pow|cbrt|hypot|erf|erfc|tgamma|lgamma)[fl]?[[:space:]]*\(' \
    "$none" kernels)"
breach "flags that let the compiler change arithmetic" \
  "$(grep -nE -- '-(ffast-math|Ofast|funsafe-math-optimizations|fassociative-math|freciprocal-math|ffinite-math-only|ffp-contract=(fast|on))' \
    CMakeLists.txt */CMakeLists.txt /dev/null | grep -vE '^[^:]*:[0-9]+:[[:space:]]*#' || true)"

# ---- form
breach "lines have up to 128 characters (docs/style.md)" \
  "$(perl -CSD -ne 'chomp; print "$ARGV:$.:$_\n" if length > 128; close ARGV if eof' "${sources[@]}")"

[ "$breaches" -eq 0 ] || { echo "$breaches rules broken" >&2; exit 1; }

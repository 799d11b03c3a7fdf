/* The calibration or evaluation set on every rank: the coordinator reads and tokenizes, the others receive. */
#ifndef QDIST_PIPELINE_TEXT_H
#define QDIST_PIPELINE_TEXT_H

#include "pipeline/model.h"
#include "storage/tokens.h"
#include "workers/comm.h"

/* folder: of the tokenizer; not needed for token ids (.i32).  tokenizer: opened on rank 0 (NULL elsewhere, for ids without one,
 * and on failure). A length of 0 means 2048, or the model's positions if they are fewer. Collective.  QD_EBADINPUT: vocabulary
 * mismatch ...; QD_EINVAL: rows longer than the model's positions. */
qd_status qd_text_load(qd_comm *comm, const char *folder, const qd_model *model, const qd_tokens_request *request,
                       qd_tokens *tokens, qd_tokenizer **tokenizer) QD_MUST_USE;

#endif

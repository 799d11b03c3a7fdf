/* A Llama of any shape with random bf16 weights, and token ids for it: for measurements that need a shape, not a language. */
#include "tests/support/llama_maker.h"

#include <stdio.h>
#include <stdlib.h>

enum { N_NUMBERS = 8 };

static const char usage[] =
    "usage: make_llama FOLDER IDS.i32 BLOCKS HIDDEN FFN HEADS KV_HEADS VOCABULARY POSITIONS TOKENS\n"
    "  FOLDER exists; the model goes there, TOKENS ids into IDS.i32\n";

int main(int argc, char **argv) {
  int number[N_NUMBERS];
  if (argc != 3 + N_NUMBERS) return fputs(usage, stderr), 2;
  for (int i = 0; i < N_NUMBERS; i++) {
    char *end;
    long value = strtol(argv[3 + i], &end, 10);
    if (*end != '\0' || value < 1 || value > 1 << 28) return fprintf(stderr, "\"%s\" is no size\n%s", argv[3 + i], usage), 2;
    number[i] = (int)value;
  }
  qd_make_llama(argv[1], &(qd_made_llama){.dtype = QD_BF16, .blocks = number[0], .hidden = number[1], .ffn = number[2],
                                          .heads = number[3], .kv_heads = number[4], .vocabulary = number[5],
                                          .positions = number[6]});
  qd_make_ids(argv[2], number[7], number[5], 1);
  return 0;
}

/* A batch as it goes into an engine: checked, of one type, without ignored pairs, and with what other ranks hold. */
#pragma once
#include "loss.h"
#include <vector>

namespace sweep {

struct Batch {
  Tensor images, texts;      /* this rank's (b, D): valid pairs, compute type, contiguous */
  Tensor all_texts;          /* every rank's (B, D) */
  Tensor ids, all_ids;       /* (b), (B) int64, or undefined */
  Tensor valid;              /* (b) places of the valid pairs among those given; undefined: all are */
  std::vector<int64_t> counts; /* pairs of each rank */
  int64_t first = 0;         /* column of this rank's first pair */
  int64_t total = 0;         /* B */
  int64_t given = 0;         /* pairs as they came in */
};

/* Throws for what can't be computed; with a group on all ranks together, so that none waits for one that gave up.
 * `bias` null: InfoNCE. */
Batch prepare(const char *loss, const Tensor &images, const Tensor &texts, const Tensor &scale, const Tensor *bias,
              const Options &options);

/* Over all ranks, in place; nothing without a group. */
void all_reduce(const Options &options, Tensor &values, bool maximum);
/* Rows of all ranks in order, (B, ...), from this rank's (b, ...). */
Tensor gathered(const Options &options, const Batch &batch, const Tensor &local);
/* This rank's rows of the sum over ranks. */
Tensor scattered(const Options &options, const Batch &batch, const Tensor &all);

} // namespace sweep

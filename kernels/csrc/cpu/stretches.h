/* How half a transformer block goes through the rows of x: by stretches of whole sequences, which stay in the cache, and for derivatives
 * of weights by chunks of stretches, whose order no number of threads changes.
 *
 * oneDNN makes a kernel for each m, n and k that a product is asked for, and ATen keeps it for ever, a thread. So m and k take few
 * values, however many rows there are: see Brgemm::multiply and `padded_rows`.
 */
#pragma once
#include "branch.h"
#include "products.h"
#include "sweep.h"
#include <vector>

namespace sweep {

constexpr int64_t STRETCH = 128; /* rows that go through together, or one sequence */

/* Whole sequences: rows from `first`, sequences from `sequence`; `laid` and `laid_sequences` is where they begin among the rows, and the
 * sequences, of their chunk. `groups` are those sequences. */
struct Stretch {
  int64_t first, rows, sequence, sequences, laid, laid_sequences;
  std::vector<Sequences> groups;
};

inline std::vector<Stretch> stretches_of(const std::vector<Sequences> &groups) {
  std::vector<Stretch> all;
  int64_t first = 0, index = 0;
  for (const Sequences &group : groups)
    for (int64_t done = 0, count; done < group.count; done += count) {
      const int64_t space = all.empty() ? 0 : (STRETCH - all.back().rows) / group.tokens;
      if (space <= 0) all.push_back({first, 0, index, 0, 0, 0, {}});
      count = std::min(space > 0 ? space : std::max<int64_t>(1, STRETCH / group.tokens), group.count - done);
      Stretch &stretch = all.back();
      stretch.groups.push_back({count, group.tokens});
      stretch.rows += count * group.tokens, stretch.sequences += count;
      first += count * group.tokens, index += count;
    }
  return all;
}

/* Stretches [begin, end) of about CHUNK rows; rows and sequences with what makes those of a stretch even where factors go in pairs of
 * rows. */
struct Chunk {
  size_t begin, end;
  int64_t rows, sequences;
};

template <typename T> std::vector<Chunk> chunks_of(std::vector<Stretch> &all) {
  std::vector<Chunk> chunks;
  for (size_t i = 0; i < all.size(); ++i) {
    const int64_t rows = even<T>(all[i].rows);
    if (chunks.empty() || chunks.back().rows + rows > CHUNK) chunks.push_back({i, i, 0, 0});
    Chunk &chunk = chunks.back();
    all[i].laid = chunk.rows, all[i].laid_sequences = chunk.sequences;
    chunk.rows += rows, chunk.sequences += even<T>(all[i].sequences);
    chunk.end = i + 1;
  }
  return chunks;
}

inline int64_t most_rows(const std::vector<Stretch> &all) {
  int64_t most = 0;
  for (const Stretch &stretch : all) most = std::max(most, stretch.rows);
  return most;
}

/* A kept matrix: float32, or bfloat16 if half. */
struct KeptRows {
  bool half;
  void *values;
  int64_t columns;

  float *float_row(int64_t row) const { return static_cast<float *>(values) + row * columns; }
  uint16_t *half_row(int64_t row) const { return values ? static_cast<uint16_t *>(values) + row * columns : nullptr; }
  /* Rows where they lie, or at `room` as float32. */
  const float *read(int64_t first, int64_t rows, float *room) const {
    if (!half) return float_row(first);
    widen_row(rows * columns, half_row(first), room);
    return room;
  }
};

/* A row of a left factor. */
template <typename P> void left_row(int64_t n, const float *from, typename P::T *to) {
  if constexpr (PAIRS<typename P::T>) convert(from, n, to);
  else if constexpr (P::ROUNDS) round_row(from, n, to);
  else std::copy_n(from, n, to);
}

/* Rows of a chunk with those of zeros that follow them. */
inline int64_t padded_rows(int64_t rows) { return blocks(rows, LANES) * LANES; }

/* Most of them, of rows or of sequences, which are no more. */
inline int64_t most_padded(const std::vector<Chunk> &chunks) {
  int64_t most = 0;
  for (const Chunk &chunk : chunks) most = std::max(most, padded_rows(chunk.rows));
  return most;
}

inline int64_t longest(const std::vector<Sequences> &groups) {
  int64_t most = 0;
  for (const Sequences &group : groups) most = std::max(most, group.tokens);
  return most;
}

/* (rows, n) at `values` to (n, rows) at `at`, rows `ld` apart, as a left factor, by way of `turned` where its type is another. */
template <typename P>
void lay_turned(int64_t rows, int64_t n, const float *values, float *turned, typename P::T *at, int64_t ld) {
  float *own;
  if constexpr (PAIRS<typename P::T>) own = turned;
  else own = at;
  transpose(rows, n, values, n, own, ld);
  turned_factor<P>(n, rows, own, ld, at);
}

/* Zeros in the columns of a left factor (n, rows) and the rows of a right one (rows, columns) that `padded_rows` adds. */
template <typename P> void pad_left(int64_t n, int64_t rows, typename P::T *a, int64_t ld) {
  for (int64_t j = 0; j < n; ++j) std::fill(a + j * ld + rows, a + j * ld + padded_rows(rows), typename P::T(0.0f));
}
template <typename P> void pad_right(int64_t rows, int64_t columns, typename P::T *b, int64_t depth) {
  const int64_t more = padded_rows(rows) - rows;
  const std::vector<float> zeros(size_t(more * columns), 0.0f);
  if (more > 0) P::lay(more, columns, zeros.data(), columns, rows, depth, b);
}

/* dW1^T (k, n) as dW1 (n, k). */
inline void turn(int64_t k, int64_t n, const float *from, float *to) {
  in_parts(blocks(n, LANES), [&](int64_t, int64_t begin, int64_t end) {
    const int64_t j = begin * LANES;
    transpose(k, std::min(n, end * LANES) - j, from + j, n, to + j * k, k);
  });
}

/* Rows of a derivative that sums over rows which one thread takes at a time: up to 64, and no fewer than there are threads where that
 * leaves whole vectors. */
inline int64_t shared_height(int64_t n) { return std::min<int64_t>(64, blocks(blocks(n, at::get_num_threads()), LANES) * LANES); }

/* Rows [begin, end) of a derivative that sums over rows, so many at a time. */
struct Share {
  int64_t begin, end, height;
};

/* What `back()` makes takes the stretches of a chunk on one thread; chunks go side by side, as many as there are `factors` to hold what
 * the weights' gradients are made of. After each round `products(chunk, factors, share, add)` brings that together, for each share of
 * the `width` rows, in the order of the chunks. */
template <typename Factors, typename Back, typename Products>
void in_rounds(const std::vector<Stretch> &all, const std::vector<Chunk> &chunks, std::vector<Factors> &factors, int64_t width,
               const BranchGradients &gradients, Back back, Products products) {
  const int64_t height = shared_height(width);
  for (size_t round = 0; round < chunks.size(); round += factors.size()) {
    const int64_t together = int64_t(std::min(factors.size(), chunks.size() - round));
    in_parts(together, [&](int64_t, int64_t begin, int64_t end) {
      auto take = back();
      for (int64_t c = begin; c < end; ++c) {
        const Chunk &chunk = chunks[round + size_t(c)];
        Factors &to = factors[size_t(c)];
        to.clear();
        for (size_t i = chunk.begin; i < chunk.end; ++i) take(all[i], to);
        to.pad(chunk);
      }
    });
    for (int64_t c = 0; c < together; ++c) factors[size_t(c)].add_sums(gradients);
    in_parts(blocks(width, height), [&](int64_t, int64_t begin, int64_t end) {
      for (int64_t c = 0; c < together; ++c)
        products(chunks[round + size_t(c)], factors[size_t(c)], Share{begin * height, std::min(width, end * height), height},
                 round + size_t(c) > 0);
    });
  }
}

/* `to` (width, n) = or += a (width, k) b (k, n), a share of its rows. */
template <typename P>
void accumulate(Share share, int64_t n, int64_t k, int64_t depth, const typename P::T *a, int64_t ld, const typename P::T *b, float *to,
                bool add) {
  by_columns(n, [&](Columns of) {
    for (int64_t j = share.begin; j < share.end; j += share.height)
      P::accumulate(std::min(share.height, share.end - j), n, of, k, depth, a + j * ld, ld, b, to + j * n, add);
  });
}

} // namespace sweep

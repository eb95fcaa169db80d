/* Panel kernels and the host side of Hopper's, emulated on the CPU, against float64 sums written down as in panel.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <limits>
#include <vector>

#include "../hopper.h"
#include "../element.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"

namespace {

using Vector = std::vector<double>;
const double infinity = std::numeric_limits<double>::infinity();
const sweep_panel_kernels &kernels = *sweep_cuda_kernels();
int failures = 0;

void check(bool good, const char *what, int64_t at, double found, double wanted) {
  if (good) return;
  if (++failures <= 20) printf("FAILED %s [%ld]: %.9g, should be %.9g\n", what, long(at), found, wanted);
}
void near(const char *what, const Vector &found, const Vector &wanted, double relative, double absolute = 0) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double error = fabs(found[i] - wanted[i]);
    const bool same = found[i] == wanted[i] || (isnan(found[i]) && isnan(wanted[i]));
    check(same || error <= relative * fabs(wanted[i]) + absolute, what, int64_t(i), found[i], wanted[i]);
  }
}

double noise() {
  static uint64_t state = 1;
  state = state * 6364136223846793005u + 1442695040888963407u;
  return double(state >> 11) / double(1ull << 52) - 1;
}
double softplus(double x) { return fmax(x, 0) + log1p(exp(-fabs(x))); }
double logistic(double x) { return 1 / (1 + exp(-x)); }

struct Case {
  int64_t rows, cols, stride, positive;
  double scale;
  int shift; /* elements by which the panel starts off its alignment */
};

/* Ends where its last element does, for the sanitizer. */
template <class T>
struct Buffer {
  std::vector<T> store;
  T *start;
  Buffer(int64_t n, int shift) : store(size_t(n + shift)), start(store.data() + shift) {
    check(reinterpret_cast<uintptr_t>(store.data()) % 16 == 0, "malloc aligns to 16", 0, 0, 0);
  }
};
double value(float x) { return x; }
double value(double x) { return x; }
double value(__half x) { return double(x) / 16384; }
double value(__nv_bfloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float found;
  memcpy(&found, &bits, sizeof found);
  return found;
}

template <class T>
struct Run {
  Case c;
  Buffer<T> panel;
  Vector s; /* S, in float64 */
  sweep_scalars scalars{};
  std::vector<double> workspace;
  sweep_panel at{};
  explicit Run(Case c) : c(c), panel(c.rows * c.stride, c.shift) {
    for (int64_t i = 0; i < c.rows; ++i) {
      for (int64_t j = 0; j < c.stride; ++j) {
        const double cosine = j >= c.cols ? 7 : j == i + c.positive ? 0.3 + 0.1 * noise() : 0.5 * noise();
        panel.start[i * c.stride + j] = T(cosine);
        if (j < c.cols) s.push_back(double(T(cosine)));
      }
    }
    workspace.assign(size_t(kernels.workspace_bytes(c.rows, c.cols) / 8), NAN);
    scalars.scale = c.scale;
    const float one = 1;
    scalars.flag = 5;
    kernels.exponent_offset(&scalars, &one, &one, nullptr);
    at.panel = panel.start;
    at.rows = c.rows, at.cols = c.cols, at.stride = c.stride, at.positive = c.positive;
    at.double_panel = sizeof(T) == 8;
    at.scalars = &scalars;
    at.workspace = workspace.data();
  }
  bool positive(int64_t i, int64_t j) const { return j == i + c.positive; }
  double logit(int64_t i, int64_t j) const { return c.scale * s[size_t(i * c.cols + j)]; }
  template <class Out>
  Vector read(const Out *from, int64_t stride) const {
    Vector found;
    for (int64_t i = 0; i < c.rows; ++i) {
      for (int64_t j = 0; j < c.cols; ++j) found.push_back(value(from[i * stride + j]));
    }
    return found;
  }
  void padding(const char *what) const {
    for (int64_t i = 0; i < c.rows; ++i) {
      for (int64_t j = c.cols; j < c.stride; ++j) {
        const double found = double(panel.start[i * c.stride + j]);
        check(found == 7, what, j, found, 7);
      }
    }
  }
};

/* Runs `write` into every kind of output and compares with `wanted`. */
template <class T, class Write>
void outputs(const char *what, Case c, int holds_or_keep, const Vector &wanted, double tolerance, Write write) {
  for (int kind : {SWEEP_IN_PLACE, SWEEP_BF16, SWEEP_FP16}) {
    if (sizeof(T) == 8 && kind != SWEEP_IN_PLACE) continue;
    for (int shift : {0, 1}) {
      Run<T> run(c);
      const int64_t stride = c.cols + (shift ? 3 : (8 - c.cols % 8) % 8);
      Buffer<__half> half(c.rows * stride, shift);
      Buffer<__nv_bfloat16> brain(c.rows * stride, shift);
      run.at.output_kind = kind;
      run.at.output_stride = stride;
      run.at.output = kind == SWEEP_FP16 ? static_cast<void *>(half.start) : brain.start;
      run.at.keep = run.at.holds = holds_or_keep;
      const int error = write(run);
      check(error == 0, "error code", 0, error, 0);
      const Vector found = kind == SWEEP_IN_PLACE ? run.read(run.panel.start, c.stride)
                           : kind == SWEEP_FP16   ? run.read(half.start, stride)
                                                  : run.read(brain.start, stride);
      near(what, found, wanted, kind == SWEEP_BF16 ? 4e-3 : kind == SWEEP_FP16 ? 6e-4 : tolerance,
           kind == SWEEP_FP16 ? 4e-12 : 1e-30);
      run.padding(what);
    }
  }
}

template <class T>
void softmax(Case c) {
  const double loose = sizeof(T) == 8 ? 1e-12 : 3e-5; /* an exponent of 140 has an ulp of 8e-6 */
  Run<T> run(c);
  const double offset = run.scalars.offset;
  check(run.scalars.flag == 0, "flag cleared", 0, double(run.scalars.flag), 0);
  check(offset >= 0 && offset <= fmax(0, c.scale - 70), "offset", 0, offset, c.scale - 70);
  Vector row(size_t(c.rows), 0), col(size_t(c.cols), 1), logits(size_t(c.rows), -1), e;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.cols; ++j) {
      e.push_back(exp(run.logit(i, j) - offset));
      if (run.positive(i, j)) {
        logits[size_t(i)] = run.logit(i, j);
      } else {
        row[size_t(i)] += e.back(), col[size_t(j)] += e.back();
      }
    }
  }
  const auto original = run.panel.store;
  const Vector nothing_row(size_t(c.rows), -5), ones(size_t(c.cols), 1), minus(size_t(c.rows), -1);
  for (int keep : {0, 1}) {
    run.panel.store = original;
    run.at.keep = keep;
    Vector r = nothing_row, k = ones, d = minus;
    check(kernels.exp_sums(&run.at, r.data(), k.data(), d.data()) == 0, "exp_sums", 0, 1, 0);
    near("row sums", r, row, loose);
    near("column sums", k, col, loose);
    near("logits", d, logits, sizeof(T) == 8 ? 1e-14 : 2e-7);
    if (keep) near("E", run.read(run.panel.start, c.stride), e, loose, 1e-30);
    if (!keep) check(run.panel.store == original, "panel unchanged", 0, 0, 1);
    run.padding("padding after exp_sums");
    Vector again = nothing_row, k2 = ones;
    run.panel.store = original;
    kernels.exp_sums(&run.at, again.data(), k2.data(), d.data());
    check(again == r && k2 == k, "the same bits", 0, 0, 1);
  }
  run.panel.store = original;
  Vector row_max(size_t(c.rows), 3), r = nothing_row, col_max(size_t(c.cols), 0), k = ones, d = minus;
  for (double &m : col_max) m = offset; /* ones under the offset: the same sum as above */
  const int error = kernels.stable_sums(&run.at, row_max.data(), r.data(), col_max.data(), k.data(), d.data());
  check(error == 0, "stable_sums", 0, error, 0);
  for (size_t i = 0; i < r.size(); ++i) r[i] = r[i] == 0 ? 0 : r[i] * exp(row_max[i] - offset);
  for (size_t j = 0; j < k.size(); ++j) k[j] *= exp(col_max[j] - offset);
  near("stable row sums", r, row, loose);
  near("stable column sums", k, col, loose);
  near("stable logits", d, logits, sizeof(T) == 8 ? 1e-14 : 2e-7);

  Vector row_term, col_term, slope, wanted, log_row, log_col;
  for (int64_t i = 0; i < c.rows; ++i) {
    row_term.push_back(1 / (1 + row[size_t(i)])), slope.push_back(-1.5 - 0.4 * noise());
    log_row.push_back(offset - log(row_term.back()));
  }
  for (int64_t j = 0; j < c.cols; ++j) {
    col_term.push_back(1 / (1 + col[size_t(j)]));
    log_col.push_back(offset - log(col_term.back()));
  }
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.cols; ++j) {
      const double g = e[size_t(i * c.cols + j)] * (row_term[size_t(i)] + col_term[size_t(j)]);
      wanted.push_back(run.positive(i, j) ? slope[size_t(i)] : g);
    }
  }
  auto refill = [&](Run<T> &other, bool exponentials) {
    for (int64_t i = 0; i < c.rows; ++i) {
      for (int64_t j = 0; j < c.cols; ++j) {
        const size_t from = size_t(i * c.cols + j);
        other.panel.start[i * c.stride + j] = T(exponentials ? e[from] : run.s[from]);
      }
    }
  };
  for (int holds : {0, 1}) {
    outputs<T>(holds ? "gradient of E" : "gradient of S", c, holds, wanted, loose, [&](Run<T> &other) {
      refill(other, holds);
      return kernels.gradient(&other.at, row_term.data(), col_term.data(), slope.data());
    });
  }
  outputs<T>("stable gradient", c, 0, wanted, loose, [&](Run<T> &other) {
    refill(other, false);
    return kernels.stable_gradient(&other.at, log_row.data(), log_col.data(), slope.data());
  });
}

template <class T>
void sigmoid(Case c) {
  const double loose = sizeof(T) == 8 ? 1e-12 : 2e-5, bias = -10;
  Run<T> run(c);
  double loss = 0, slope = 0;
  Vector wanted;
  for (int64_t i = 0; i < c.rows; ++i) {
    for (int64_t j = 0; j < c.cols; ++j) {
      const double z = run.positive(i, j) ? 1 : -1, x = run.logit(i, j) + bias;
      loss += softplus(-z * x);
      wanted.push_back(-z * logistic(-z * x));
      slope += wanted.back();
    }
  }
  run.scalars.bias = bias;
  run.scalars.loss = 3, run.scalars.slope_sum = 4;
  const auto original = run.panel.store;
  check(kernels.sigmoid(&run.at) == 0, "sigmoid", 0, 1, 0);
  near("sigmoid loss", {run.scalars.loss - 3}, {loss}, 1e-6);
  check(run.scalars.slope_sum == 4 && run.panel.store == original, "loss alone", 0, 0, 1);
  outputs<T>("sigmoid gradient", c, 1, wanted, loose, [&](Run<T> &other) {
    for (int64_t i = 0; i < c.rows; ++i) {
      for (int64_t j = 0; j < c.cols; ++j) other.panel.start[i * c.stride + j] = T(run.s[size_t(i * c.cols + j)]);
    }
    other.scalars.bias = bias;
    const int error = kernels.sigmoid(&other.at);
    near("sigmoid loss with gradient", {other.scalars.loss}, {loss}, 1e-6);
    near("slope sum", {other.scalars.slope_sum}, {slope}, 1e-5, 1e-5);
    return error;
  });
}

void sides() {
  sweep_scalars scalars{};
  scalars.scale = 100;
  const float image = 1, text = 1;
  kernels.exponent_offset(&scalars, &image, &text, nullptr);
  const double offset = scalars.offset, bits = offset / sweep::ln_2;
  check(bits == round(bits) && bits > 42 && bits < 44, "offset in bits", 0, bits, 43);
  const Vector sum = {1, 0, 5, 1e20, NAN}, diagonal = {offset, offset, offset - 20, 30, 30};
  Vector loss(5), slope(5), lse(5), inverse(5);
  auto run = [&](int64_t first, int64_t n, const double *max) {
    scalars.flag = 0;
    return kernels.side(&scalars, n, max, &sum[size_t(first)], &diagonal[size_t(first)], &loss[size_t(first)],
                        &slope[size_t(first)], &lse[size_t(first)], &inverse[size_t(first)], nullptr);
  };
  check(run(0, 4, nullptr) == 0 && scalars.flag == 0, "sound", 0, double(scalars.flag), 0);
  near("loss", {loss[0], loss[1], loss[2]}, {log(2), 0, softplus(log(5) + 20)}, 1e-14);
  near("slope", {slope[0], slope[1]}, {0.5, 0}, 1e-14);
  near("inverse", {inverse[0], inverse[1], inverse[2]}, {0.5, 1, 1 / (5 + exp(-20))}, 1e-12);
  near("lse", {lse[0], lse[1]}, {offset + log(2), offset}, 1e-14);
  run(4, 1, nullptr);
  check(scalars.flag == 1, "NaN is flagged", 0, double(scalars.flag), 1);
  const Vector tiny = {exp(-60)}, low = {-100}, max = {-70};
  auto one = [&](const double *maximum) {
    scalars.flag = 0;
    kernels.side(&scalars, 1, maximum, tiny.data(), low.data(), loss.data(), slope.data(), lse.data(), inverse.data(),
                 nullptr);
  };
  one(nullptr);
  check(scalars.flag == 1, "underflow is flagged", 0, double(scalars.flag), 1);
  one(max.data());
  check(scalars.flag == 0, "a maximum is never flagged", 0, double(scalars.flag), 0);
  near("loss under a maximum", {loss[0]}, {softplus(-60 - 70 + 100)}, 1e-12);

  const int64_t n = 3000, first = 17;
  Vector a, b, e, f, positive(size_t(n), 0), wanted;
  double total = 0;
  for (int64_t i = 0; i < n + first; ++i) {
    for (Vector *vector : {&a, &b, &e, &f}) vector->push_back(noise());
  }
  for (int64_t i = 0; i < n; ++i) {
    total += a[size_t(i)] + e[size_t(i + first)];
    wanted.push_back(-(b[size_t(i)] + f[size_t(i + first)]));
  }
  kernels.pairs(&scalars, n, first, a.data(), b.data(), e.data(), f.data(), positive.data(), nullptr);
  near("positive slopes", positive, wanted, 0);
  near("total loss", {scalars.loss}, {total}, 1e-12, 1e-11);
}

/* NaN ends in its own row's and column's sums, infinity does not become a number. */
void not_numbers() {
  for (bool stable : {false, true}) {
    Run<float> run({70, 600, 600, 0, 20, 0});
    run.panel.start[3 * 600 + 500] = NAN;
    Vector r(70), k(600, 0), d(70), rm(70), km(600, -infinity);
    if (stable) {
      kernels.stable_sums(&run.at, rm.data(), r.data(), km.data(), k.data(), d.data());
    } else {
      kernels.exp_sums(&run.at, r.data(), k.data(), d.data());
    }
    for (int64_t i = 0; i < 70; ++i) check(isnan(r[size_t(i)]) == (i == 3), "NaN row", i, r[size_t(i)], 0);
    for (int64_t j = 0; j < 600; ++j) check(isnan(k[size_t(j)]) == (j == 500), "NaN column", j, k[size_t(j)], 0);
  }
  using namespace sweep;
  check(isnan(soft(NAN).plus) && isnan(soft(NAN).sigmoid), "softplus keeps NaN", 0, 0, NAN);
  check(isnan(scaled_gradient(NAN)) && scaled_gradient(9) == 65504 && scaled_gradient(-9) == -65504, "range", 0, 0, 0);
  Pair<float> empty = no_pair<float>(), both = merge(empty, empty);
  check(both.sum == 0 && both.max == -INFINITY, "nothing and nothing", 0, both.sum, 0);
  for (float x = 0; x <= 1; x += 1e-4f) {
    const double found = log1p_unit(x), wanted = log1p(double(x));
    check(fabs(found - wanted) <= 1.5e-7 * wanted, "log1p", 0, found, wanted);
  }
}

}  // namespace

/* Stand-ins for the GEMMs: they write what hopper.h says that a GEMM writes. Depth 8, bf16. */
namespace sweep {
static double product(const HopperCall &call, int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t k = 0; k < call.depth; ++k) {
    sum += value(static_cast<const __nv_bfloat16 *>(call.images)[i * call.depth + k]) *
           value(static_cast<const __nv_bfloat16 *>(call.texts)[j * call.depth + k]);
  }
  return sum;
}
int hopper_bf16_sums(const HopperCall &call) {
  const int64_t height = (call.rows + 127) / 128 * 128, width = (call.cols + 255) / 256 * 256;
  for (int64_t at = 0; at < width / 256 * height; ++at) call.row_parts[at] = 0;
  for (int64_t at = 0; at < height / 128 * width; ++at) call.col_parts[at] = 0;
  for (int64_t i = 0; i < call.rows; ++i) {
    for (int64_t j = 0; j < call.cols; ++j) {
      const double l = call.scalars->scale * product(call, i, j);
      const float e = float(exp(l - call.scalars->offset));
      if (j == i + call.positive) {
        call.diagonal[i] = l;
        continue;
      }
      call.row_parts[j / 256 * height + i] += e;
      call.col_parts[i / 128 * width + j] += e;
    }
  }
  return 0;
}
int hopper_bf16_gradient(const HopperCall &call) {
  for (int64_t i = 0; i < call.rows; ++i) {
    for (int64_t j = 0; j < call.cols; ++j) {
      const double e = exp(call.scalars->scale * product(call, i, j) - call.scalars->offset);
      const double other = e * (call.row_inverse[i] + call.col_inverse[j]);
      const double g = j == i + call.positive ? call.positive_slope[i] : other;
      static_cast<__half *>(call.output)[i * call.output_stride + j] = __half(16384 * g);
    }
  }
  return 0;
}
int hopper_bf16_loss(const HopperCall &call) {
  const int64_t parts = 8 * ((call.rows + 127) / 128) * ((call.cols + 255) / 256);
  for (int64_t part = 0; part < 2 * parts; ++part) call.loss_parts[part] = part % 2 ? 0.25 : 1;
  return 0;
}
int hopper_bf16_sigmoid(const HopperCall &call) { return hopper_bf16_loss(call); }
int hopper_fp16_sums(const HopperCall &) { return 77; }
int hopper_fp16_gradient(const HopperCall &) { return 77; }
int hopper_fp16_loss(const HopperCall &) { return 77; }
int hopper_fp16_sigmoid(const HopperCall &) { return 77; }
}  // namespace sweep

namespace {
void hopper() {
  const sweep_fused_kernels &fused = *sweep_hopper_kernels();
  const bool right = fused.supports(SWEEP_BF16, 8) && !fused.supports(SWEEP_FP16, 12) && !fused.supports(7, 8);
  check(right, "supports", 0, right, 1);
  const int64_t rows = 8192 + 200, cols = 300, depth = 8, stride = 304;
  Buffer<__nv_bfloat16> images(rows * depth, 0), texts(cols * depth, 0);
  for (int64_t i = 0; i < rows * depth; ++i) images.start[i] = __float2bfloat16_rn(float(0.4 * noise()));
  for (int64_t i = 0; i < cols * depth; ++i) texts.start[i] = __float2bfloat16_rn(float(0.4 * noise()));
  sweep_scalars scalars{};
  scalars.scale = 100, scalars.offset = 43 * sweep::ln_2;
  Buffer<double> workspace(fused.workspace_bytes(rows, cols) / 8 + 1, 0);
  Buffer<__half> output(rows * stride, 0);
  sweep_fused problem{};
  problem.images = images.start, problem.texts = texts.start, problem.input_kind = SWEEP_BF16;
  problem.rows = rows, problem.cols = cols, problem.depth = depth, problem.positive = -8250;
  problem.output = output.start, problem.output_stride = stride;
  problem.scalars = &scalars, problem.workspace = workspace.start;
  sweep::HopperCall whole{};
  whole.images = images.start, whole.texts = texts.start, whole.depth = int32_t(depth);
  Vector row(size_t(rows), 0), col(size_t(cols), 2), d(size_t(rows), -1), slope(size_t(rows), -0.5);
  Vector r = row, k = col, logits = d;
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; ++j) {
      const double l = 100 * sweep::product(whole, i, j), e = exp(l - scalars.offset);
      if (j == i + problem.positive) {
        logits[size_t(i)] = l;
      } else {
        row[size_t(i)] += e, col[size_t(j)] += e;
      }
    }
  }
  check(fused.sums(&problem, r.data(), k.data(), d.data()) == 0, "fused sums", 0, 1, 0);
  near("fused row sums", r, row, 1e-5);
  near("fused column sums", k, col, 1e-5);
  near("fused logits", d, logits, 1e-12);
  problem.rows = 130;
  problem.positive = 100;
  check(fused.gradient(&problem, row.data(), col.data(), slope.data()) == 0, "fused gradient", 0, 1, 0);
  const double positive = value(output.start[5 * stride + 105]);
  check(positive == -0.5, "fused positive", 5, positive, -0.5);
  scalars.loss = 1, scalars.slope_sum = 1;
  check(fused.sigmoid(&problem) == 0, "fused loss", 0, 1, 0);
  check(scalars.loss == 33 && scalars.slope_sum == 1, "loss alone, fused", 0, scalars.loss, 33);
  problem.keep = 1;
  check(fused.sigmoid(&problem) == 0, "fused sigmoid", 0, 1, 0);
  check(scalars.loss == 65 && scalars.slope_sum == 9, "loss and slope, fused", 0, scalars.loss, 65);
  problem.input_kind = SWEEP_FP16;
  check(fused.sigmoid(&problem) == 77, "errors come back", 0, 0, 77);
  problem.output_stride = 300;
  check(fused.sigmoid(&problem) == cudaErrorInvalidValue, "stride of the output", 0, 0, 1);
}
}  // namespace

int main() {
  const Case cases[] = {
      {1, 1, 1, 0, 14, 0},           {2, 2, 4, 0, 100, 0},         {63, 64, 64, 0, 50, 0},
      {64, 512, 512, 100, 100, 0},   {65, 513, 516, -3, 100, 0},   {130, 1030, 1031, 7, 20, 0},
      {17, 1025, 1028, 1000, 14, 0}, {129, 515, 516, 0, 100, 1},   {80, 600, 600, 5000, 100, 0},
      {16, 3, 3, 0, 1, 0},
  };
  for (const Case &c : cases) {
    softmax<float>(c);
    softmax<double>(c);
    sigmoid<float>(c);
    sigmoid<double>(c);
  }
  sides();
  not_numbers();
  hopper();
  printf("%s\n", failures ? "failed" : "emulated on the CPU: kernels agree with the formulas");
  return failures != 0;
}

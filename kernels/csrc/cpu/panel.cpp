/* The panel kernels of panel.h on the CPU, float32 and float64: plain, for every machine. The quick way for float32
 * and bfloat16 is tiles.cpp; this serves float64, underflow under the common offset, and CPUs without it. Gradients come out
 * in place alone: a CPU gains nothing from half precision here.
 */
#include "../panel.h"
#include "sweep.h"
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>
#include <ATen/Parallel.h>

namespace sweep {
namespace {

constexpr int64_t GRAIN = 4; /* rows a thread takes at least */

double softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }
double sigmoid(double x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }

template <typename T> T *row_of(const sweep_panel &p, int64_t i) { return static_cast<T *>(p.panel) + i * p.stride; }

/* Runs body(first, last, col_sum of this part) over parts of the rows, then adds the parts in order: the same bits for
 * the same number of threads. */
template <typename F> void by_rows(const sweep_panel &p, double *col_sum, F body) {
  const int64_t parts = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), p.rows / GRAIN));
  std::vector<double> sums(size_t(parts) * size_t(p.cols), 0.0);
  at::parallel_for(0, parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part)
      body(p.rows * part / parts, p.rows * (part + 1) / parts, sums.data() + part * p.cols);
  });
  for (int64_t part = 0; part < parts; ++part)
    for (int64_t j = 0; j < p.cols; ++j) col_sum[j] += sums[size_t(part * p.cols + j)];
}

/* e^(s S - m), rounded to what the panel holds: the gradient sees what the sums saw. */
template <typename T> T exp_of(const sweep_scalars &s, T product) {
  return T(std::exp(s.scale * double(product) - s.offset));
}

template <typename T> int exp_sums_of(const sweep_panel &p, double *row_sum, double *col_sum, double *diagonal) {
  const sweep_scalars &s = *p.scalars;
  by_rows(p, col_sum, [&](int64_t first, int64_t last, double *columns) {
    for (int64_t i = first; i < last; ++i) {
      T *row = row_of<T>(p, i);
      const int64_t positive = p.positive + i;
      if (positive >= 0 && positive < p.cols) diagonal[i] = s.scale * double(row[positive]);
      double sum = 0;
      around(p.positive + i, p.cols, [&](int64_t b, int64_t e) {
        for (int64_t j = b; j < e; ++j) {
          const T value = exp_of(s, row[j]);
          if (p.keep) row[j] = value;
          sum += value;
          columns[j] += value;
        }
      });
      row_sum[i] = sum;
    }
  });
  return 0;
}

template <typename T, typename F> int each_slope(const sweep_panel &p, const double *positive_slope, F slope) {
  at::parallel_for(0, p.rows, GRAIN, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      T *row = row_of<T>(p, i);
      around(p.positive + i, p.cols, [&](int64_t b, int64_t e) {
        for (int64_t j = b; j < e; ++j) row[j] = T(slope(row[j], i, j));
      });
      const int64_t positive = p.positive + i;
      if (positive >= 0 && positive < p.cols) row[positive] = T(positive_slope[i]);
    }
  });
  return 0;
}

template <typename T>
int gradient_of(const sweep_panel &p, const double *row_inverse, const double *col_inverse, const double *slope) {
  const bool holds_e = p.holds != 0;
  return each_slope<T>(p, slope, [&](T x, int64_t i, int64_t j) {
    return double(holds_e ? x : exp_of(*p.scalars, x)) * (row_inverse[i] + col_inverse[j]);
  });
}

template <typename T>
int stable_sums_of(const sweep_panel &p, double *row_max, double *row_sum, double *col_max, double *col_sum,
                   double *diagonal) {
  const double scale = p.scalars->scale;
  const double none = -std::numeric_limits<double>::infinity();
  /* Rows, then columns: each thread owns the rows, then the columns, whose maximum and sum it moves. */
  at::parallel_for(0, p.rows, GRAIN, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const T *row = row_of<T>(p, i);
      const int64_t positive = p.positive + i;
      if (positive >= 0 && positive < p.cols) diagonal[i] = scale * double(row[positive]);
      double most = none, sum = 0;
      around(p.positive + i, p.cols, [&](int64_t b, int64_t e) { /* NaN wins, and stays */
        for (int64_t j = b; j < e; ++j) most = !(scale * row[j] <= most) ? scale * row[j] : most;
      });
      around(p.positive + i, p.cols, [&](int64_t b, int64_t e) {
        for (int64_t j = b; j < e; ++j) sum += std::exp(scale * row[j] - most);
      });
      row_max[i] = most;
      row_sum[i] = sum;
    }
  });
  at::parallel_for(0, p.cols, 256, [&](int64_t first, int64_t last) {
    for (int64_t i = 0; i < p.rows; ++i) {
      const T *row = row_of<T>(p, i);
      for (int64_t j = first; j < last; ++j) {
        if (j == p.positive + i) continue;
        const double l = scale * row[j];
        if (l <= col_max[j]) {
          col_sum[j] += std::exp(l - col_max[j]);
        } else {
          col_sum[j] = (col_sum[j] == 0 ? 0 : col_sum[j] * std::exp(col_max[j] - l)) + (l == l ? 1 : l);
          col_max[j] = l;
        }
      }
    }
  });
  return 0;
}

template <typename T>
int stable_gradient_of(const sweep_panel &p, const double *row_lse, const double *col_lse, const double *slope) {
  const double scale = p.scalars->scale;
  return each_slope<T>(p, slope, [&](T x, int64_t i, int64_t j) {
    const double l = scale * double(x);
    return std::exp(l - row_lse[i]) + std::exp(l - col_lse[j]);
  });
}

template <typename T> int sigmoid_of(const sweep_panel &p) {
  sweep_scalars &s = *p.scalars;
  std::vector<double> losses(size_t(p.rows)), slopes(size_t(p.rows));
  at::parallel_for(0, p.rows, GRAIN, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      T *row = row_of<T>(p, i);
      double loss = 0, sum = 0;
      for (int64_t j = 0; j < p.cols; ++j) {
        const double z = j == p.positive + i ? 1 : -1;
        const double x = s.scale * double(row[j]) + s.bias;
        const double slope = -z * sigmoid(-z * x);
        loss += softplus(-z * x);
        sum += slope;
        if (p.keep) row[j] = T(slope);
      }
      losses[size_t(i)] = loss;
      slopes[size_t(i)] = sum;
    }
  });
  for (int64_t i = 0; i < p.rows; ++i) {
    s.loss += losses[size_t(i)];
    s.slope_sum += slopes[size_t(i)];
  }
  return 0;
}

int64_t workspace_bytes(int64_t, int64_t) { return 0; }

int exponent_offset(sweep_scalars *s, const float *image_norm, const float *text_norm, void *) {
  const double over = std::fabs(s->scale) * double(*image_norm) * double(*text_norm) - 70;
  s->offset = over > 0 && over < 1e300 ? std::floor(over * LOG2E) / LOG2E : 0;
  s->loss = s->slope_sum = 0;
  s->flag = 0;
  return 0;
}

int exp_sums(const sweep_panel *p, double *row_sum, double *col_sum, double *diagonal) {
  return p->double_panel ? exp_sums_of<double>(*p, row_sum, col_sum, diagonal)
                         : exp_sums_of<float>(*p, row_sum, col_sum, diagonal);
}
int gradient(const sweep_panel *p, const double *row_inverse, const double *col_inverse, const double *slope) {
  return p->double_panel ? gradient_of<double>(*p, row_inverse, col_inverse, slope)
                         : gradient_of<float>(*p, row_inverse, col_inverse, slope);
}
int stable_sums(const sweep_panel *p, double *row_max, double *row_sum, double *col_max, double *col_sum,
                double *diagonal) {
  return p->double_panel ? stable_sums_of<double>(*p, row_max, row_sum, col_max, col_sum, diagonal)
                         : stable_sums_of<float>(*p, row_max, row_sum, col_max, col_sum, diagonal);
}
int stable_gradient(const sweep_panel *p, const double *row_lse, const double *col_lse, const double *slope) {
  return p->double_panel ? stable_gradient_of<double>(*p, row_lse, col_lse, slope)
                         : stable_gradient_of<float>(*p, row_lse, col_lse, slope);
}

int side(sweep_scalars *s, int64_t n, const double *max, const double *sum, const double *diagonal, double *loss,
         double *slope, double *lse, double *inverse, void *) {
  const double least = std::ldexp(double(n), -80);
  bool bad = false;
  for (int64_t i = 0; i < n; ++i) {
    const double x = std::log(sum[i]) + (max ? max[i] : s->offset) - diagonal[i];
    loss[i] = softplus(x);
    slope[i] = sigmoid(x);
    lse[i] = diagonal[i] + loss[i];
    if (!(lse[i] < std::numeric_limits<double>::infinity())) /* as libtorch's softmax of an infinite logit: NaN throughout */
      loss[i] = slope[i] = lse[i] = std::numeric_limits<double>::quiet_NaN();
    inverse[i] = std::exp(s->offset - lse[i]);
    bad = bad || !(std::exp(lse[i] - s->offset) >= least) || !std::isfinite(inverse[i]);
  }
  if (bad && !max) s->flag = 1;
  return 0;
}

int pairs(sweep_scalars *s, int64_t n, int64_t first, const double *row_loss, const double *row_slope,
          const double *col_loss, const double *col_slope, double *positive_slope, void *) {
  s->loss = 0;
  for (int64_t i = 0; i < n; ++i) {
    positive_slope[i] = -(row_slope[i] + col_slope[first + i]);
    s->loss += row_loss[i] + col_loss[first + i];
  }
  return 0;
}

int sigmoid_sweep(const sweep_panel *p) { return p->double_panel ? sigmoid_of<double>(*p) : sigmoid_of<float>(*p); }

const sweep_panel_kernels TABLE = {workspace_bytes, exponent_offset, exp_sums, gradient, stable_sums,
                                   stable_gradient, side,            pairs,    sigmoid_sweep};
} // namespace
} // namespace sweep

extern "C" const sweep_panel_kernels *sweep_cpu_kernels(void) { return &sweep::TABLE; }

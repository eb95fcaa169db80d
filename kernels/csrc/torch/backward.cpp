#include "backward.h"
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

namespace sweep {
namespace {

using torch::autograd::variable_list;
using Take = std::function<void(int64_t, const Tensor &)>;

/* libtorch calls a leaf's hooks with the sum of all that it was used for. */
struct Hook : torch::autograd::FunctionPreHook {
  const Take &take;
  int64_t index;
  char &taken;

  Hook(const Take &take_, int64_t index_, char &taken_) : take(take_), index(index_), taken(taken_) {}
  variable_list operator()(const variable_list &gradients) override {
    if (gradients.at(0).defined()) {
      taken = 1;
      take(index, gradients[0]);
    }
    return {Tensor()};
  }
};

/* `remove_hook` would leave a place in the leaf's list, one more each step: these hooks are cleared. */
struct Hooks {
  const std::vector<Tensor> &leaves;
  std::vector<char> taken;

  Hooks(const std::vector<Tensor> &leaves_, const Take &take) : leaves(leaves_), taken(leaves_.size(), 0) {
    for (size_t i = 0; i < leaves.size(); ++i)
      torch::autograd::impl::add_hook(leaves[i], std::make_unique<Hook>(take, int64_t(i), taken[i]));
  }
  ~Hooks() {
    for (const Tensor &leaf : leaves) torch::autograd::impl::clear_hooks(leaf);
  }
};

} // namespace

void backward(const Tensor &loss, const std::vector<Tensor> &leaves, const Take &take) {
  const Hooks hooks(leaves, take);
  /* What hooks return takes the place of a gradient: so it may be missing. */
  torch::autograd::grad({loss}, leaves, {}, false, false, true);
  for (size_t i = 0; i < leaves.size(); ++i)
    TORCH_CHECK(hooks.taken[i], "the loss does not depend on leaf ", i, ", of shape ", leaves[i].sizes());
}

} // namespace sweep

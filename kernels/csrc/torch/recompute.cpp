#include "recompute.h"
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>

namespace sweep {
namespace {

using torch::autograd::variable_list;

/* libtorch's own class for such operators takes as many tensors as its forward names. */
struct Recomputed : torch::autograd::Node {
  std::vector<torch::autograd::SavedVariable> inputs;
  Run run;

  Recomputed(const variable_list &inputs_, Run run_) : Node(torch::autograd::collect_next_edges(inputs_)), run(std::move(run_)) {
    for (const Tensor &input : inputs_) inputs.emplace_back(input, false);
  }

  variable_list apply(variable_list &&upstream) override {
    TORCH_CHECK(!at::GradMode::is_enabled(), "what is computed again has no second derivative: call backward without create_graph=True");
    TORCH_CHECK(run, "the graph is gone: it is walked back once");
    /* Leaves of a graph of their own: the model's would be told of their gradients twice. */
    variable_list again, wanted;
    for (size_t i = 0; i < inputs.size(); ++i) {
      again.push_back(inputs[i].unpack().detach());
      if (!task_should_compute_output(i)) continue;
      wanted.push_back(again.back().set_requires_grad(true));
    }
    Tensor y;
    {
      const at::AutoGradMode with_graph(true);
      y = run(again);
    }
    variable_list found = torch::autograd::grad({y}, wanted, {upstream[0]}, std::nullopt, false, true), out(again.size());
    for (size_t i = 0, next = 0; i < again.size(); ++i)
      if (again[i].requires_grad()) out[i] = std::move(found[next++]);
    return out;
  }

  void release_variables() override {
    inputs.clear();
    run = nullptr;
  }
};

} // namespace

Tensor recompute(const std::vector<Tensor> &inputs, Run run) {
  Tensor y;
  {
    const at::NoGradGuard no_graph;
    y = run(inputs);
  }
  if (!torch::autograd::compute_requires_grad(inputs)) return y;
  const std::shared_ptr<Recomputed> node(new Recomputed(inputs, std::move(run)), torch::autograd::deleteNode);
  torch::autograd::set_history(y, node);
  return y;
}

} // namespace sweep

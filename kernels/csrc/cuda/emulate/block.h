/* A block of threads on the CPU: coroutines that run in turn up to the next barrier or shuffle, always in the same
 * order. That finds wrong indices and wrong formulas, but no races, no misuse of memory spaces, and nothing that hangs
 * on the hardware.
 */
#ifndef SWEEP_EMULATE_BLOCK_H
#define SWEEP_EMULATE_BLOCK_H
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

namespace emulate {

struct Thread {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = true;
};
inline std::vector<Thread> threads;
inline ucontext_t scheduler;
inline std::function<void()> body;
inline unsigned index; /* of the thread that runs */
inline double lanes[1024];

inline void yield() { swapcontext(&threads[index].context, &scheduler); }
inline void entry() {
  body();
  threads[index].done = true;
  yield();
}

/* Every thread of a block, to its end. */
inline void block(unsigned size, std::function<void()> what) {
  constexpr size_t stack = 256 << 10;
  body = std::move(what);
  if (threads.size() < size) threads.resize(size);
  for (unsigned t = 0; t < size; ++t) {
    Thread &thread = threads[t];
    if (!thread.stack) thread.stack.reset(new char[stack]);
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = stack;
    thread.context.uc_link = nullptr;
    thread.done = false;
    makecontext(&thread.context, entry, 0);
  }
  for (bool running = true; running;) {
    running = false;
    for (index = 0; index < size; ++index) {
      if (threads[index].done) continue;
      swapcontext(&scheduler, &threads[index].context);
      running = running || !threads[index].done;
    }
  }
}

/* The value of thread `from`; the second turn keeps a quick thread from overwriting what a slow one has yet to read. */
template <class T>
T exchange(T value, unsigned from) {
  static_assert(sizeof value <= sizeof lanes[0], "a shuffle moves up to eight bytes");
  memcpy(&lanes[index], &value, sizeof value);
  yield();
  memcpy(&value, &lanes[from], sizeof value);
  yield();
  return value;
}
template <class T>
T exchange_xor(T value, int mask) {
  return exchange(value, index ^ unsigned(mask));
}
template <class T>
T exchange_down(T value, int step) {
  return exchange(value, index % 32 + unsigned(step) < 32 ? index + unsigned(step) : index);
}

}  // namespace emulate
#endif

// How kernels split their work over threads.
#pragma once

namespace nnk {

// Calls a body for ranges that together are [0, count), possibly on several threads at once.
//
// A kernel whose results are sums splits what is computed, never what is summed: its results do not
// depend on the ranges that it is called for.
class Parallel {
 public:
  virtual ~Parallel() = default;

  // body(begin, end) for disjoint ranges; returns when all of them are done. `work` is about how
  // many nanoseconds of one core all of it takes: little work is not worth a second thread.
  template <class Body>
  void run(long count, double work, const Body& body) {
    if (count <= 0) return;
    split(
        count, work,
        [](const void* context, long begin, long end) {
          (*static_cast<const Body*>(context))(begin, end);
        },
        &body);
  }

 protected:
  using Range = void (*)(const void* context, long begin, long end);
  virtual void split(long count, double work, Range range, const void* context) = 0;
};

// All on the calling thread.
class Serial final : public Parallel {
 protected:
  void split(long count, double, Range range, const void* context) override {
    range(context, 0, count);
  }
};

}  // namespace nnk

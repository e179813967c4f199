// The process's one pool of threads; the only place that starts any.
#pragma once
#include <cstddef>
#include <string>

namespace talu {

// Processors that this process may use: its affinity, and the quotas of its control groups, read
// below the folders `proc` and `groups`. A part of a processor counts as a whole one.
int available_threads(const std::string& proc = "/proc",
                      const std::string& groups = "/sys/fs/cgroup");

// Threads that run_parallel has, the caller among them. Fewer than available_threads() where the system
// does not let this process start more. The first call starts them.
int pool_threads();

// Runs body(context, item, worker) for the items 0 .. count - 1 on up to `threads` threads, the
// caller among them as worker 0, and returns when all are done. Items are taken one by one, so a
// thread that the system has put aside holds up at most the item in its hands. Calls from several
// threads take turns. The body must not throw.
void run_parallel(int threads, std::size_t count,
                  void (*body)(void* context, std::size_t item, int worker), void* context);

}  // namespace talu

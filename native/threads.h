// The thread pool of the process, which starts all native threads.
#pragma once
#include <cstddef>
#include <string>

namespace talu {

// Processors that this process may use: its affinity, and the quotas of its control groups, read
// below the folders `proc` and `groups`. A fraction of a processor is rounded up.
int available_threads(const std::string& proc = "/proc",
                      const std::string& groups = "/sys/fs/cgroup");

// Threads of run_parallel, including the caller. Fewer than available_threads() if the system
// cannot start more. The first call starts them.
int pool_threads();

// Runs body(context, item, worker) for the items 0 .. count - 1 on up to `threads` threads, the
// caller among them as worker 0, and returns when all are done. Items are taken one by one, so a
// thread that is not scheduled delays at most one item. Concurrent calls run one at a time. The
// body must not throw.
void run_parallel(int threads, std::size_t count,
                  void (*body)(void* context, std::size_t item, int worker), void* context);

}  // namespace talu

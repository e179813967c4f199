#include "threads.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace talu {
namespace {

int affinity() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

// Processors that one control group grants, or 0 for no limit. Version 2 has both numbers in one
// file ("max 100000" for none), version 1 in two (-1 for none).
double group_quota(const std::string& folder) {
  double quota = 0, period = 0;
  if (std::ifstream file(folder + "/cpu.max"); file >> quota >> period && period > 0)
    return quota / period;
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  if (quota_file >> quota && period_file >> period && quota > 0 && period > 0)
    return quota / period;
  return 0;
}

// The tightest quota of this process's groups and all above them, or 0 for no limit. A container
// often sees its own group at the root.
double quota(const std::string& proc, const std::string& groups) {
  double tightest = 0;
  auto consider = [&](const std::string& folder) {
    const double granted = group_quota(folder);
    if (granted > 0 && (tightest == 0 || granted < tightest)) tightest = granted;
  };
  std::ifstream membership(proc + "/self/cgroup");
  for (std::string line; std::getline(membership, line);) {
    const auto first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string path = line.substr(second + 1);
    std::string root = groups;
    if (!controllers.empty()) {
      if (("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
      root += "/cpu";
    }
    for (;; path.erase(path.rfind('/'))) {
      consider(root + path);
      if (path.empty() || path == "/" || path.rfind('/') == std::string::npos) break;
    }
    consider(root);
  }
  return tightest;
}

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

struct Job {
  void (*body)(void*, std::size_t, int) = nullptr;
  void* context = nullptr;
  std::size_t count = 0;
  int threads = 0;
};

class Pool {
 public:
  Pool() {
    // Detached: they live until the process ends, asleep when there is nothing to do. Those that have
    // been started use this object, so the constructor must not throw if the next one fails to start.
    const int wanted = available_threads();
    shares_ = std::make_unique<Share[]>(static_cast<std::size_t>(wanted));
    for (; size_ < wanted; ++size_) {
      try {
        std::thread([this, worker = size_] { serve(worker); }).detach();
      } catch (const std::system_error&) {
        break;
      }
    }
  }

  int size() const { return size_; }

  void run(const Job& job) {
    const std::lock_guard turn(turn_);
    job_ = job;
    job_.threads = std::min(job.threads, size_);
    const auto threads = static_cast<std::size_t>(job_.threads);
    for (std::size_t w = 0; w < threads; ++w) {
      shares_[w].next.store(job.count * w / threads, std::memory_order_relaxed);
      shares_[w].end = job.count * (w + 1) / threads;
    }
    const std::uint64_t call = (gate_.load(std::memory_order_relaxed) | kFlags) + 1;
    gate_.store(call | kOpen, std::memory_order_seq_cst);
    signal_.fetch_add(1, std::memory_order_seq_cst);
    if (asleep_.load(std::memory_order_seq_cst) > 0) signal_.notify_all();
    work(0);
    // Workers that have not joined by now are not waited for.
    gate_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (int spins = 0; (gate_.load(std::memory_order_acquire) & kInside) != 0; ++spins)
      spins < kSpins ? pause() : std::this_thread::yield();
  }

 private:
  // gate_: number of the call, whether it accepts workers, and how many have joined.
  static constexpr std::uint64_t kInside = 0x7fff, kOpen = 0x8000, kFlags = kInside | kOpen;
  static constexpr int kSpins = 4000;

  void serve(int worker) {
    std::uint64_t seen = 0;
    for (;;) {
      std::uint64_t gate = wait_for_call(seen);
      seen = gate & ~kFlags;
      while ((gate & kOpen) != 0 && (gate & ~kFlags) == seen)
        if (gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) {
          if (worker < job_.threads) work(worker);
          gate_.fetch_sub(1, std::memory_order_release);
          break;
        }
    }
  }

  // Waits for a new open call: spins briefly, then sleeps.
  std::uint64_t wait_for_call(std::uint64_t seen) {
    for (int spins = 0;; ++spins) {
      const std::uint32_t signal = signal_.load(std::memory_order_seq_cst);
      const std::uint64_t gate = gate_.load(std::memory_order_seq_cst);
      if ((gate & kOpen) != 0 && (gate & ~kFlags) != seen) return gate;
      if (spins < kSpins) {
        pause();
        continue;
      }
      asleep_.fetch_add(1, std::memory_order_seq_cst);
      signal_.wait(signal, std::memory_order_seq_cst);
      asleep_.fetch_sub(1, std::memory_order_seq_cst);
      spins = 0;
    }
  }

  // The worker's own share of the items, then what others have not begun. Neighbouring items read
  // neighbouring memory, which a processor requests before it is needed.
  void work(int worker) {
    const Job job = job_;
    for (int i = 0; i < job.threads; ++i) {
      Share& share = shares_[static_cast<std::size_t>((worker + i) % job.threads)];
      for (std::size_t item;
           (item = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;)
        job.body(job.context, item, worker);
    }
  }

  struct alignas(64) Share {
    std::atomic<std::size_t> next{0};
    std::size_t end = 0;
  };

  int size_ = 1;  // with the caller
  std::mutex turn_;
  Job job_;
  alignas(64) std::atomic<std::uint64_t> gate_{0};
  std::unique_ptr<Share[]> shares_;  // of each worker
  alignas(64) std::atomic<std::uint32_t> signal_{0};
  std::atomic<int> asleep_{0};
};

std::mutex pool_lock;
Pool* pool = nullptr;

// Threads do not survive fork(): the child starts new ones on demand.
void forget_pool() {
  new (&pool_lock) std::mutex;
  pool = nullptr;
}

Pool& the_pool() {
  const std::lock_guard lock(pool_lock);
  if (pool == nullptr) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_pool);
    static_cast<void>(registered);
    pool = new Pool;
  }
  return *pool;
}

}  // namespace

int available_threads(const std::string& proc, const std::string& groups) {
  const int processors = affinity();
  const double granted = quota(proc, groups);
  const int limit = granted > 0 ? static_cast<int>(std::ceil(granted)) : processors;
  return std::max(1, std::min(processors, limit));
}

int pool_threads() { return the_pool().size(); }

void run_parallel(int threads, std::size_t count, void (*body)(void*, std::size_t, int),
                  void* context) {
  if (threads <= 1 || count <= 1) {
    for (std::size_t item = 0; item < count; ++item) body(context, item, 0);
    return;
  }
  the_pool().run({body, context, count, threads});
}

}  // namespace talu

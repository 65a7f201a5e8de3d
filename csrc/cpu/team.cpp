#include "team.h"

#include <mutex>
#include <system_error>
#include <thread>

#include <unistd.h>
#if defined(__linux__)
#include <pthread.h>
#include <sched.h>
#endif

namespace torchnn::cpu {

// Helpers live as long as the process. During a call they spin; after it they spin a little longer,
// since the next call may come soon, and go to sleep.
class Crew {
 public:
  // The process's crew; a forked process, which inherits no threads, gets a new one.
  static Crew& get() {
    static std::mutex mutex;
    static Crew* crew = nullptr;  // never deleted: helpers may outlive static objects
    static pid_t owner = 0;
    const std::lock_guard lock(mutex);
    if (owner != getpid()) crew = new Crew, owner = getpid();
    return *crew;
  }

  bool acquire() { return mutex_.try_lock(); }

  // Calls the first helpers to work, new ones if need be; returns how many there are.
  int64_t call(int64_t count) {
    is_active_.store(true, std::memory_order_relaxed);
    while (int64_t(helpers_.size()) < count && add()) {
    }
    count = std::min<int64_t>(count, helpers_.size());
    for (int64_t i = 0; i < count; ++i) post(i, helpers_[i]->next(true));
    return count;
  }

  void release() {
    is_active_.store(false, std::memory_order_relaxed);
    mutex_.unlock();
  }

  bool is_ready(int64_t i) const {
    return helpers_[i]->done.load(std::memory_order_acquire) == helpers_[i]->last;
  }

  void post(int64_t count, void (*call)(const void* context, int64_t part), const void* context) {
    call_ = call, context_ = context;
    for (int64_t i = 0; i < count; ++i) post(i, helpers_[i]->next(false));
  }

  void wait(int64_t count) const {
    for (int64_t i = 0; i < count; ++i) spin([&] { return is_ready(i); }, [] { return true; });
  }

 private:
  // A number for each piece of work; they wrap around, and are only compared for equality. The
  // lowest bit marks a call to work, which asks for no more than an answer.
  using Number = uint32_t;

  struct alignas(64) Helper {  // a cache line of its own
    std::atomic<Number> posted{0}, done{0};
    Number last = 0;
    Number next(bool is_call) { return last = ((last | 1) + 1) | Number(is_call); }
  };

  static constexpr int patience = 2000;  // tries, some 50 us

  // A new helper, or false if the system has no more threads to give: then there are fewer.
  bool add() {
    helpers_.push_back(std::make_unique<Helper>());
    try {
      std::thread thread([this, &own = *helpers_.back(), part = int64_t(helpers_.size())] {
        help(own, part);
      });
      keep_apart(thread);
      thread.detach();
      return true;
    } catch (const std::system_error&) {
      helpers_.pop_back();
      return false;
    }
  }

  // Linux likes to start a thread on the core of its maker, where neither gets on.
  static void keep_apart([[maybe_unused]] std::thread& thread) {
#if defined(__linux__)
    cpu_set_t cpus;
    if (sched_getaffinity(0, sizeof cpus, &cpus) != 0) return;
    CPU_CLR(sched_getcpu(), &cpus);
    if (CPU_COUNT(&cpus) > 0) pthread_setaffinity_np(thread.native_handle(), sizeof cpus, &cpus);
#endif
  }

  void post(int64_t i, Number number) {
    helpers_[i]->posted.store(number, std::memory_order_release);
    helpers_[i]->posted.notify_one();
  }

  void help(Helper& own, int64_t part) {
    for (Number seen = 0;;) {
      spin([&] { return own.posted.load(std::memory_order_acquire) != seen; },
           [&] { return is_active_.load(std::memory_order_relaxed); });
      own.posted.wait(seen, std::memory_order_acquire);
      seen = own.posted.load(std::memory_order_acquire);
      if (seen % 2 == 0) call_(context_, part);
      own.done.store(seen, std::memory_order_release);
    }
  }

  // Until it is met, or, some time after it has begun, there is no more reason to go on.
  template <class Condition, class Reason>
  static void spin(const Condition& is_met, const Reason& goes_on) {
    for (int tries = 0; !is_met(); ++tries) {
      if (tries < patience) {
        pause();
      } else {
        if (!goes_on()) return;
        std::this_thread::yield();  // others may have the core
      }
    }
  }

  static void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }

  std::mutex mutex_;
  std::atomic<bool> is_active_{false};
  std::vector<std::unique_ptr<Helper>> helpers_;
  void (*call_)(const void* context, int64_t part) = nullptr;
  const void* context_ = nullptr;
};

Team::Team(int64_t most) : crew_(nullptr), helpers_(0) {
  if (most <= 1 || !Crew::get().acquire()) return;
  crew_ = &Crew::get();
  helpers_ = crew_->call(most - 1);
}

Team::~Team() {
  // A helper that has not answered yet still has to: its number must not change under it.
  if (crew_) crew_->release();
}

int64_t Team::size() {
  while (joined_ < helpers_ && crew_->is_ready(joined_)) ++joined_;
  return 1 + joined_;
}

void Team::post(int64_t parts, void (*call)(const void* context, int64_t part),
                const void* context) {
  crew_->post(parts - 1, call, context);
}

void Team::wait(int64_t parts) { crew_->wait(parts - 1); }

}  // namespace torchnn::cpu

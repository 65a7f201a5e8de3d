#include "cpu_ways.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <map>
#include <mutex>
#include <sstream>
#include <string>

#include "binding.h"

namespace torchnn {
namespace {

enum class How : int { measured, ours, library };
constexpr std::array<const char*, 3> hows{"measured", "ours", "library"};

How how_at_first() {
  const char* asked = std::getenv("TORCHNN_PRODUCTS");
  if (!asked || !*asked) return How::measured;
  const auto* found = std::find(hows.begin(), hows.end(), std::string(asked));
  STD_TORCH_CHECK(found != hows.end(), "TORCHNN_PRODUCTS must be measured, ours or library, got ",
                  asked);
  return How(found - hows.begin());
}

std::atomic<How>& how() {
  static std::atomic<How> chosen = how_at_first();
  return chosen;
}

// Sizes that share a choice differ by less than half: the place of the highest bit, and the next.
int64_t size_class(int64_t n) {
  const int64_t bits = std::bit_width(uint64_t(n));
  return 2 * bits + (bits > 1 ? n >> (bits - 2) & 1 : 0);
}

using Key = std::array<int64_t, 6>;

struct Choice {
  ProductKind kind;  // the first of them
  int64_t threads;
  Range rows, columns;   // what of it was computed
  double ours, library;  // microseconds

  // Where both are alike, noise must not choose: then it is ours, or for large products the
  // library, which is made for them, and of which perhaps only a part was computed.
  bool is_for_library() const {
    constexpr double large = 1 << 25;  // multiply-adds
    const bool is_large = double(kind.rows) * double(kind.columns) * double(kind.depth) >= large;
    return library < (is_large ? 1.15 : 0.97) * ours;
  }
};

struct Choices {
  std::mutex mutex;
  std::map<Key, Choice> made;
  static Choices& all() {
    static Choices& choices = *new Choices;  // threads may outlive what is destroyed at exit
    return choices;
  }
};

double microseconds(const Compute& compute, Range rows, Range columns, int64_t calls) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point begin = Clock::now();
  for (int64_t i = 0; i < calls; ++i) compute(rows, columns);
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count() / double(calls);
}

// A part of a product that takes a millisecond, about, or a sixteenth of the whole, so that a
// choice costs little beside it. Rows are cut first: what is packed of b is then used as it is in
// the whole.
void cut(const ProductKind& kind, Range& rows, Range& columns) {
  constexpr int64_t few = 128;
  auto products = [&] { return double(rows.end) * double(columns.end) * double(kind.depth); };
  const double enough = std::max(double(1 << 26), products() / 16);  // multiply-adds
  while (products() > enough && rows.end >= 2 * few) rows.end /= 2;
  while (products() > enough && columns.end >= 2 * few) columns.end /= 2;
}

Choice measure(const ProductKind& kind, const Compute& ours, const Compute& library) {
  constexpr int rounds = 5;
  constexpr double round = 60;        // microseconds, at least
  constexpr double patience = 30000;  // microseconds: on a busy machine, one round must do
  Choice choice{kind, torch::stable::get_num_threads(), {0, kind.rows}, {0, kind.columns}, 0, 0};
  cut(kind, choice.rows, choice.columns);
  auto time = [&](const Compute& compute, int64_t calls) {
    return microseconds(compute, choice.rows, choice.columns, calls);
  };
  double spent = time(ours, 1) + time(library, 1);  // fresh memory, threads that wake up
  const double once = std::min(time(ours, 1), time(library, 1));
  const int64_t calls = std::clamp<int64_t>(int64_t(round / std::max(once, 1e-3)), 1, 64);
  choice.ours = choice.library = 1e300;
  for (int i = 0; i == 0 || (i < rounds && spent < patience); ++i) {
    const double own = time(ours, calls), other = time(library, calls);
    spent += double(calls) * (own + other);
    choice.ours = std::min(choice.ours, own);  // the best: what disturbs can only slow it down
    choice.library = std::min(choice.library, other);
  }
  return choice;
}

}  // namespace

bool is_for_library(const ProductKind& kind, const Compute& ours, const Compute& library) {
  const How chosen = how().load(std::memory_order_relaxed);
  if (chosen != How::measured) return chosen == How::library;
  const Key key{kind.place,
                kind.element_size,
                int64_t(torch::stable::get_num_threads()),
                size_class(kind.rows),
                size_class(kind.columns),
                size_class(kind.depth)};
  Choices& choices = Choices::all();
  {
    const std::lock_guard lock(choices.mutex);
    const auto found = choices.made.find(key);
    if (found != choices.made.end()) return found->second.is_for_library();
  }
  // Not under the lock: the library may want others that wait for it. The first choice holds.
  const Choice choice = measure(kind, ours, library);
  const std::lock_guard lock(choices.mutex);
  return choices.made.emplace(key, choice).first->second.is_for_library();
}

bool may_use_library() { return how().load(std::memory_order_relaxed) != How::ours; }

void choose_ways(int64_t chosen) {
  check_range("how", chosen, 0, int64_t(hows.size()) - 1);
  how() = How(chosen);
}

std::string ways() {
  static constexpr std::array<const char*, 3> places{"forward", "grad_x", "grad_weight"};
  Choices& choices = Choices::all();
  const std::lock_guard lock(choices.mutex);
  std::ostringstream out;
  out << hows[int(how().load())] << '\n';
  for (const auto& [key, choice] : choices.made)
    out << places[choice.kind.place] << ' ' << choice.kind.rows << ' ' << choice.kind.columns << ' '
        << choice.kind.depth << ' ' << choice.kind.element_size << ' ' << choice.threads << ' '
        << choice.rows.end << ' ' << choice.columns.end << ' ' << choice.ours << ' '
        << choice.library << ' ' << (choice.is_for_library() ? "library" : "ours") << '\n';
  return out.str();
}

}  // namespace torchnn

// A list of structs, each a variant of the same idea: an activation, a loss, an update rule.
#pragma once

#include <cstdint>
#include <type_traits>

namespace torchnn {

// An operator takes an entry as its place in the list: PyTorch 2.13's stable ABI loses memory with
// every string argument. Python looks the place up by name.
template <class... Entries>
struct TypeList {
  static constexpr int64_t size = sizeof...(Entries);

  // Where an entry stands.
  template <class Entry>
  static constexpr int64_t place() {
    int64_t i = 0;
    static_cast<void>(((std::is_same_v<Entry, Entries> || (++i, false)) || ...));
    return i;
  }

  // Calls f with the entry at that place, which must exist. constexpr, so that CUDA threads may.
  template <class Place, class F>
  static constexpr void with(Place place, F&& f) {
    Place i = 0;
    static_cast<void>(((i++ == place && (f(Entries{}), true)) || ...));
  }
  // Calls f with every entry, in order.
  template <class F>
  static constexpr void each(F&& f) {
    (f(Entries{}), ...);
  }
};

}  // namespace torchnn

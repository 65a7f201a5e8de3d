// A number that tells memory apart from what it was.
#pragma once

#include <cstdint>

namespace torchnn::cpu {

// Of so many bytes and what has been hashed before. Any change to one place shows in it; several
// cancel out as seldom as chance allows. It is the same only within one process.
uint64_t hash(const char* bytes, int64_t count, uint64_t before);

}  // namespace torchnn::cpu

#define SPD_ISA avx512
#include "functions.hpp"

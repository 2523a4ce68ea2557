#define SPD_ISA avx2
#include "functions.hpp"

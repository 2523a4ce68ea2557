#define SPD_ISA baseline
#include "functions.hpp"

# A small C project is compiled in parallel, run, changed and compiled again.
for n in {1..6}; do
    printf '#include "sum.h"\nint part%d(void) { return %d; }\n' "$n" "$n" >"part$n.c"
done
for n in {1..6}; do printf 'int part%d(void);\n' "$n"; done >sum.h
cat >main.c <<'C'
#include <stdio.h>
#include "sum.h"
int main(void) { printf("%d\n", part1() + part2() + part3() + part4() + part5() + part6()); return 0; }
C
cat >Makefile <<'MAKE'
OBJECTS = main.o part1.o part2.o part3.o part4.o part5.o part6.o
CFLAGS = -O1 -Wall -Werror
sum: libsum.a main.o
	$(CC) -o $@ main.o -L. -lsum
libsum.a: $(filter part%,$(OBJECTS))
	$(AR) rcs $@ $^
$(OBJECTS): sum.h
MAKE
make -s -j4
same "$(./sum)" 21 "result"
# make trusts times: nothing to do now, and one file after a change.
same "$(make -q && echo nothing)" nothing "second make"
sed -i 's/return 3/return 30/' part3.c
make -j4 >"$SCRATCH/make.log"
same "$(grep -c ' -c ' "$SCRATCH/make.log")" 1 "files compiled again"
same "$(./sum)" 48 "result after the change"

/** Compilers and make: mapped headers, timestamps, programs run from the mount. */
import { applicationTest, full } from './place.ts';

const sources = full ? 120 : 25;
const needs = { programs: ['gcc', 'make', 'ar'], minutes: 5 };

/** A library of many C files, a program that calls them all, headers found by -I, dependencies by -MMD. */
const project = `
  mkdir -p project/src project/include && cd project
  for i in $(seq ${String(sources)}); do
    echo "int part_$i(void);" >include/part_$i.h
    printf '#include <stdio.h>\\n#include <stdlib.h>\\n#include <string.h>\\n#include "part_%d.h"\\nint part_%d(void) { return %d; }\\n' $i $i $i >src/part_$i.c
  done
  { for i in $(seq ${String(sources)}); do echo "#include \\"part_$i.h\\""; done
    echo '#include <stdio.h>'; echo 'int main(void) { int sum = 0;'
    for i in $(seq ${String(sources)}); do echo "sum += part_$i();"; done
    echo 'printf("%d\\n", sum); return 0; }'; } >src/main.c
  cat >Makefile <<'END'
CFLAGS = -O1 -Iinclude -MMD
objects = $(patsubst src/%.c,obj/%.o,$(filter-out src/main.c,$(wildcard src/*.c)))
program: obj/main.o libparts.a
	$(CC) -o $@ $^
libparts.a: $(objects)
	$(AR) rcs $@ $^
obj/%.o: src/%.c | obj
	$(CC) $(CFLAGS) -c -o $@ $<
obj:
	mkdir $@
-include obj/*.d
END
`;

applicationTest('gcc and make: a library, a program, incremental builds', needs, async (t, place) => {
  await place.sh(project);
  const sum = (sources * (sources + 1)) / 2;
  await place.sh('make -s -j2', 180, `${place.directory}/project`);
  t.is(await place.sh('project/program'), `${String(sum)}\n`);
  t.regex(await place.sh('make -C project'), /is up to date/);
  await place.sh('sleep 0.05; touch project/include/part_3.h');
  const again = await place.sh('make -C project');
  t.is(again.match(/-c -o/g)?.length, 2, 'part_3.c and main.c are compiled again, nothing else');
});

applicationTest('a statically linked program, run and replaced while it runs', needs, async (t, place) => {
  await place.sh(
    `printf '#include <unistd.h>\\nint main(void) { return sleep(30); }\\n' >s.c && gcc -static -o sleeper s.c`,
  );
  const output = await place.sh(`
    ./sleeper & pid=$!
    sleep 0.2
    (echo >>sleeper) 2>&1 | grep -o 'Text file busy' || true
    gcc -static -o new s.c && mv new sleeper && kill -0 $pid && echo lives
    kill $pid; wait $pid || true`);
  t.is(output, 'Text file busy\nlives\n');
});

applicationTest('shared libraries and scripts are run from the mount', needs, async (t, place) => {
  const output = await place.sh(`
    echo 'int answer(void) { return 42; }' >lib.c && gcc -shared -fPIC -o libanswer.so lib.c
    printf '#include <stdio.h>\\nint answer(void);\\nint main(void) { printf("%%d\\\\n", answer()); }\\n' >main.c
    gcc -o main main.c -L. -lanswer -Wl,-rpath,'$ORIGIN' && ./main
    printf '#!/bin/sh\\necho from "$0"\\n' >script && chmod +x script && ./script
    chmod -x script && (./script || echo "not executable: $?") 2>/dev/null`);
  t.is(output, '42\nfrom ./script\nnot executable: 126\n');
});

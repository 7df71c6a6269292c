/** RocksDB's own benchmark: many files made, mapped, renamed and deleted, with checksums on every block. */
import { applicationTest, full } from './place.ts';

const keys = full ? 150_000 : 40_000;
const phases =
  'fillseq,fillrandom,overwrite,readrandom,readseq,deleterandom,readwhilewriting,compact,readrandom';

const runs: [title: string, options: string, isLong: boolean][] = [
  ['buffered', '', true],
  ['mapped reads', '--mmap_read=1', false],
  ['direct I/O', '--use_direct_reads=1 --use_direct_io_for_flush_and_compaction=1', true],
];

for (const [title, options, isLong] of runs) {
  const needs = { programs: ['db_bench', 'ldb'], size: '2g', minutes: 8, full: isLong };
  applicationTest(`RocksDB db_bench, ${title}`, needs, async (t, place) => {
    const output = await place.sh(
      `db_bench --db=db --benchmarks=${phases} --num=${String(keys)} --reads=${String(keys / 4)} --value_size=200 \
        --threads=2 --write_buffer_size=2097152 --target_file_size_base=1048576 --compression_type=none \
        --verify_checksum=1 --wal_bytes_per_sync=65536 ${options}`,
      300,
    );
    t.notRegex(output, /Corruption|IO error|put error|get error/i);
    for (const phase of new Set(phases.split(','))) t.regex(output, new RegExp(`^${phase} +:`, 'm'));
    t.regex(await place.sh('ldb --db=db checkconsistency', 60), /OK/);
  });
}

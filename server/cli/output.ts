/** What commands print: lines, tables and JSON on stdout. */

/** `poly ls | head -1` closes the pipe early; that is no error. */
export function ignoreClosedPipes(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') throw error;
      process.exit(process.exitCode ?? 0);
    });
  }
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

export interface Column<Row> {
  title: string;
  value: (row: Row) => string | number;
  /** Numbers stand right. */
  align?: 'left' | 'right';
}

/** Control characters in a path must not break the table or reach the terminal; octal as in mountinfo, proc(5). */
export function printable(text: string): string {
  return text.replace(/[\x00-\x1f\x7f]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);
}

/** Columns as wide as their widest cell, two spaces apart, no trailing blanks. */
export function table<Row>(columns: Column<Row>[], rows: Row[]): string {
  const cells = rows.map((row) => columns.map((column) => printable(String(column.value(row)))));
  const widths = columns.map((column, i) =>
    Math.max(column.title.length, ...cells.map((line) => line[i]?.length ?? 0)),
  );
  const line = (texts: string[]): string =>
    texts
      .map((text, i) => {
        const width = widths[i] ?? 0;
        return columns[i]?.align === 'right' ? text.padStart(width) : text.padEnd(width);
      })
      .join('  ')
      .trimEnd();
  return [columns.map((column) => column.title), ...cells].map(line).join('\n');
}

/** 1536 -> "1.5K"; powers of 1024 as ls -h has them. */
export function bytes(count: number): string {
  const units = ['', 'K', 'M', 'G', 'T'];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit++;
  }
  return `${unit === 0 || count >= 10 ? String(Math.round(count)) : count.toFixed(1)}${units[unit] ?? ''}`;
}

/** Nanoseconds in the unit a person would pick: "850ns", "4.7us", "12ms", "1.5s". */
export function duration(ns: number): string {
  const units: [number, string][] = [
    [1e9, 's'],
    [1e6, 'ms'],
    [1e3, 'us'],
  ];
  for (const [size, unit] of units) {
    if (ns >= size)
      return `${ns / size >= 10 ? String(Math.round(ns / size)) : (ns / size).toFixed(1)}${unit}`;
  }
  return `${String(Math.round(ns))}ns`;
}

/** How long ago an ISO 8601 time was: "5s", "3min", "2h", "4d". */
export function since(time: string, now = Date.now()): string {
  const seconds = Math.max(0, Math.floor((now - Date.parse(time)) / 1000));
  if (seconds < 120) return `${String(seconds)}s`;
  if (seconds < 7200) return `${String(Math.floor(seconds / 60))}min`;
  if (seconds < 172_800) return `${String(Math.floor(seconds / 3600))}h`;
  return `${String(Math.floor(seconds / 86_400))}d`;
}

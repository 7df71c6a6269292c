/** The table on the terminal. */
import { caseName, type Figure, met, round, type Row } from './rows.ts';
import { median } from './statistics.ts';
import type { System } from './systems/system.ts';

/** Columns as wide as their widest cell; the first `left` of them flush left, the rest right. */
export function columns(rows: readonly (readonly string[])[], left: number): string {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => (widths[i] = Math.max(widths[i] ?? 0, cell.length)));
  const pad = (cell: string, i: number): string =>
    i < left ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0);
  return rows.map((row) => row.map(pad).join('  ').trimEnd()).join('\n');
}

/** Every system's figure, with the range of its rounds. */
export function figureTable(figures: readonly Figure[], systems: readonly System[]): string {
  const blocks = (['memory', 'local', 'fast'] as const).map((family) => {
    const peers = systems.filter((system) => system.family === family);
    const cells = (figure: Figure): string[] =>
      peers.map(({ name }) => {
        const values = figure.values.get(name) ?? [];
        if (values.length === 0) return '-';
        if (values.length === 1) return short(median(values));
        const range = [Math.min(...values), Math.max(...values)].map((value) => short(value)).join('..');
        return `${short(median(values))} [${range}]`;
      });
    const lines = figures
      .filter((figure) => figure.family === family)
      .map((figure) => [figure.experiment, caseName(figure), figure.unit, ...cells(figure)]);
    if (lines.length === 0) return [];
    return [
      columns([['EXPERIMENT', 'CASE', 'UNIT', ...peers.map(({ name }) => name.toUpperCase())], ...lines], 3),
    ];
  });
  return blocks.flat().join('\n\n');
}

export function rowTable(rows: readonly Row[]): string {
  const lines = rows.map((row) => [
    row.experiment,
    row.case,
    row.unit,
    row.peerName,
    short(row.ours),
    short(row.peer),
    row.ratio.toFixed(2),
    row.goal?.toFixed(2) ?? '-',
    met(row) ? '' : 'MISSED',
  ]);
  return columns([['EXPERIMENT', 'CASE', 'UNIT', 'PEER', 'OURS', 'PEER', 'RATIO', 'GOAL', ''], ...lines], 4);
}

function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : String(round(Number(value.toFixed(2))));
}

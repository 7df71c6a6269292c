/** Line charts as SVG, without a dependency: logarithmic axes, one line per series, notes below. */

export interface Series {
  name: string;
  /** One value per x; undefined where nothing was measured. */
  values: readonly (number | undefined)[];
}

export interface Chart {
  title: string;
  xLabel: string;
  yLabel: string;
  x: readonly number[];
  /** What stands below each x, where that is not the number. */
  xNames?: readonly string[];
  series: readonly Series[];
  /** Sentences below the chart, one a line. */
  notes: readonly string[];
}

const WIDTH = 800;
const PLOT = { left: 80, right: 620, top: 50, bottom: 400 };
const LINE = 18;
/** Told apart by colour-blind readers too (Okabe and Ito). */
const COLOURS = ['#000000', '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#b0a000'];

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, colour: string): string {
  const at = [x1, y1, x2, y2].map((value) => value.toFixed(1));
  return `<line x1="${at[0] ?? ''}" y1="${at[1] ?? ''}" x2="${at[2] ?? ''}" y2="${at[3] ?? ''}" stroke="${colour}"/>`;
}

/** Where a value of a logarithmic axis from `low` to `high` lies between two pixels. */
function scale(low: number, high: number, from: number, to: number): (value: number) => number {
  const span = Math.log(high / low) || 1;
  return (value) => from + (Math.log(value / low) / span) * (to - from);
}

/** 1000000 -> 1M: short enough for an axis. */
function short(value: number): string {
  for (const [unit, name] of [
    [1e9, 'G'],
    [1e6, 'M'],
    [1e3, 'k'],
  ] as const) {
    if (value >= unit) return `${String(Number((value / unit).toPrecision(3)))}${name}`;
  }
  return String(Number(value.toPrecision(3)));
}

/** Whole powers of ten around all values. */
function decades(values: readonly number[]): [number, number] {
  const low = 10 ** Math.floor(Math.log10(Math.min(...values)));
  const high = 10 ** Math.ceil(Math.log10(Math.max(...values)));
  return [low, high > low ? high : low * 10];
}

function axes(chart: Chart, toX: (value: number) => number, toY: (value: number) => number): string[] {
  const parts = chart.x.map((x, i) =>
    text(toX(x), PLOT.bottom + LINE, chart.xNames?.[i] ?? String(x), 'text-anchor="middle"'),
  );
  const values = chart.series.flatMap(({ values }) => values.filter((value) => value !== undefined));
  const [low, high] = decades(values);
  for (let tick = low; tick <= high * 1.01; tick *= 10) {
    parts.push(line(PLOT.left, toY(tick), PLOT.right, toY(tick), '#dddddd'));
    parts.push(text(PLOT.left - 8, toY(tick) + 4, short(tick), 'text-anchor="end"'));
  }
  const middle = (PLOT.top + PLOT.bottom) / 2;
  parts.push(line(PLOT.left, PLOT.top, PLOT.left, PLOT.bottom, '#000000'));
  parts.push(line(PLOT.left, PLOT.bottom, PLOT.right, PLOT.bottom, '#000000'));
  parts.push(
    text((PLOT.left + PLOT.right) / 2, PLOT.bottom + 2 * LINE, chart.xLabel, 'text-anchor="middle"'),
  );
  const turned = `text-anchor="middle" transform="rotate(-90 20 ${middle.toFixed(1)})"`;
  parts.push(text(20, middle, chart.yLabel, turned));
  return parts;
}

function curve(points: readonly (readonly [number, number])[], colour: string): string[] {
  const at = points.map(([x, y]) => [x.toFixed(1), y.toFixed(1)] as const);
  return [
    `<polyline points="${at.map((pair) => pair.join(',')).join(' ')}" fill="none" stroke="${colour}" stroke-width="2"/>`,
    ...at.map(([x, y]) => `<circle cx="${x}" cy="${y}" r="3" fill="${colour}"/>`),
  ];
}

/** A whole SVG file. Values must be above zero; there must be at least one. */
export function lineChart(chart: Chart): string {
  const values = chart.series.flatMap(({ values }) => values.filter((value) => value !== undefined));
  const toX = scale(Math.min(...chart.x), Math.max(...chart.x), PLOT.left + 10, PLOT.right - 10);
  const toY = scale(...decades(values), PLOT.bottom, PLOT.top);
  const parts = [text(PLOT.left, 28, chart.title, 'font-size="16"'), ...axes(chart, toX, toY)];
  chart.series.forEach(({ name, values: line }, index) => {
    const colour = COLOURS[index % COLOURS.length] ?? '#000000';
    const points = chart.x.flatMap((x, i) => {
      const value = line[i];
      return value === undefined ? [] : [[toX(x), toY(value)] as const];
    });
    parts.push(...curve(points, colour));
    parts.push(text(PLOT.right + 16, PLOT.top + 10 + index * LINE, name, `fill="${colour}"`));
  });
  const notesTop = PLOT.bottom + 4 * LINE;
  chart.notes.forEach((note, i) => parts.push(text(PLOT.left, notesTop + i * LINE, note, 'font-size="12"')));
  const height = notesTop + chart.notes.length * LINE;
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${String(WIDTH)} ${String(height)}" font-family="sans-serif" font-size="13">`;
  return `${head}\n<rect width="100%" height="100%" fill="white"/>\n${parts.join('\n')}\n</svg>\n`;
}

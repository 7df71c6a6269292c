/**
 * Where in a TOML file each key stands, so that a complaint can name its line.
 *
 * smol-toml gives values without positions. This scanner walks a text that smol-toml has already accepted, so it
 * checks nothing: it only skips values and notes the line of every key, array element and table header.
 */

/** One step into a document: a key of a table or an index of an array. */
export type KeyPath = readonly (string | number)[];

const BARE_KEY = /[A-Za-z0-9_-]/;

class Scanner {
  readonly lines = new Map<string, number>();
  private position = 0;
  private line = 1;
  /** Elements seen so far of each array of tables, by path. */
  private readonly tables = new Map<string, number>();

  private readonly text: string;

  constructor(text: string) {
    this.text = text;
  }

  document(): void {
    let table: (string | number)[] = [];
    while (this.more()) {
      if (this.text[this.position] === '[') table = this.header();
      else this.keyValue(table);
    }
  }

  private note(path: KeyPath): void {
    const key = JSON.stringify(path);
    if (!this.lines.has(key)) this.lines.set(key, this.line);
  }

  private take(count = 1): void {
    for (let i = 0; i < count; i++) if (this.text[this.position++] === '\n') this.line++;
  }

  /** Skips white space, line ends, comments and the commas between elements. */
  private skip(): void {
    while (this.position < this.text.length) {
      const c = this.text[this.position] ?? '';
      if (c === '#')
        while (this.position < this.text.length && this.text[this.position] !== '\n') this.take();
      else if (/[\s,]/.test(c)) this.take();
      else return;
    }
  }

  /** After blanks: is there something before `end`? */
  private more(end?: string): boolean {
    this.skip();
    return this.position < this.text.length && this.text[this.position] !== end;
  }

  private header(): (string | number)[] {
    const isArray = this.text.startsWith('[[', this.position);
    this.take(isArray ? 2 : 1);
    const keys = this.keys(']');
    this.take(isArray ? 2 : 1);
    const path: (string | number)[] = [];
    keys.forEach((key, at) => {
      path.push(key);
      this.note(path);
      const id = JSON.stringify(path);
      if (isArray && at === keys.length - 1) this.tables.set(id, (this.tables.get(id) ?? -1) + 1);
      const element = this.tables.get(id);
      if (element !== undefined) path.push(element);
    });
    this.note(path);
    return path;
  }

  /** A dotted key up to `end`. */
  private keys(end: string): string[] {
    const keys: string[] = [];
    while (this.more(end)) {
      const c = this.text[this.position] ?? end;
      if (c === '"' || c === "'") keys.push(this.string());
      else if (BARE_KEY.test(c)) keys.push(this.bare());
      else this.take();
    }
    return keys;
  }

  private bare(): string {
    const start = this.position;
    while (BARE_KEY.test(this.text[this.position] ?? '.')) this.take();
    return this.text.slice(start, this.position);
  }

  private string(): string {
    const quote = this.text[this.position] ?? '"';
    const fence = this.text.startsWith(quote.repeat(3), this.position) ? quote.repeat(3) : quote;
    this.take(fence.length);
    const start = this.position;
    while (this.position < this.text.length && !this.text.startsWith(fence, this.position)) {
      this.take(quote === '"' && this.text[this.position] === '\\' ? 2 : 1);
    }
    const value = this.text.slice(start, this.position);
    this.take(fence.length);
    // Up to two quotes may stand directly before a closing fence of three.
    while (fence.length === 3 && this.text[this.position] === quote) this.take();
    return value;
  }

  private keyValue(table: KeyPath): void {
    const path = [...table];
    for (const key of this.keys('=')) {
      path.push(key);
      this.note(path);
    }
    this.take();
    this.value(path);
  }

  private value(path: KeyPath): void {
    this.skip();
    const c = this.text[this.position];
    if (c === '"' || c === "'") this.string();
    else if (c === '[') this.array(path);
    else if (c === '{') this.inlineTable(path);
    else
      while (this.position < this.text.length && !/[,\]}\n#]/.test(this.text[this.position] ?? ','))
        this.take();
  }

  private array(path: KeyPath): void {
    this.take();
    let index = 0;
    while (this.more(']')) {
      const element = [...path, index++];
      this.note(element);
      this.value(element);
    }
    this.take();
  }

  private inlineTable(path: KeyPath): void {
    this.take();
    while (this.more('}')) {
      this.keyValue(path);
    }
    this.take();
  }
}

/** Finds the line (from 1) of a path in `text`; of its nearest known parent when the path itself is not there. */
export function lineFinder(text: string): (path: KeyPath) => number {
  const scanner = new Scanner(text);
  scanner.document();
  return (path) => {
    for (let length = path.length; length > 0; length--) {
      const line = scanner.lines.get(JSON.stringify(path.slice(0, length)));
      if (line !== undefined) return line;
    }
    return 1;
  };
}

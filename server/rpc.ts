/**
 * JSON-RPC 2.0 peers over unix sockets, one message per line. Used by polyd, its clients and the service host.
 *
 * What a peer may cost is bounded: line length, requests in flight, unsent output. A line that is not JSON-RPC is
 * answered by an error; where framing is lost (a line too long) or a bound is passed the connection is closed.
 * No dependencies: the service host must start fast. Whoever handles a method validates its parameters.
 */
import { chmodSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { errorCode, errorMessage, PolyError, withContext } from './errors.ts';

/** Longest line in either direction, bytes. */
export const MAX_LINE = 1024 * 1024;
/** Unanswered requests of one peer before reading from it pauses. */
const MAX_IN_FLIGHT = 64;
/** Output a peer may leave unread before it is cut off, bytes. */
const MAX_UNSENT = 8 * 1024 * 1024;

const PARSE_ERROR = -32700;
const INVALID_REQUEST = -32600;
const METHOD_NOT_FOUND = -32601;
/** Every failure with an errno name: `data.code` has it. */
const FAILURE = -32000;

/** Methods with their parameter and result types, e.g. PolydMethods. */
export type MethodMap = Record<string, { params: unknown; result: unknown }>;

type Id = string | number | null;

interface Message {
  jsonrpc: '2.0';
  id?: Id;
  method?: string;
  params?: unknown;
  result?: unknown;
  error?: { code: number; message: string; data?: { code: string } };
}

export interface PeerHandlers {
  /** Answers a request; what it throws is sent as the error. Absent: every method is unknown. */
  onRequest?: (method: string, params: unknown, peer: RpcPeer) => unknown;
  onNotification?: (method: string, params: unknown, peer: RpcPeer) => void;
  /** The connection is gone. Requests of ours without an answer were rejected with ECONNRESET. */
  onClose?: (peer: RpcPeer) => void;
}

/** Thrown by onRequest for a method it does not have. */
export class UnknownMethod extends Error {
  constructor(method: string) {
    super(`unknown method: ${method.slice(0, 64)}`);
    this.name = 'UnknownMethod';
  }
}

interface Pending {
  resolve: (value: unknown) => void;
  reject: (error: Error) => void;
  timer: NodeJS.Timeout | undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isId(value: unknown): value is Id {
  return typeof value === 'string' || typeof value === 'number' || value === null;
}

function failure(error: unknown): { code: number; message: string; data?: { code: string } } {
  if (error instanceof UnknownMethod) return { code: METHOD_NOT_FOUND, message: error.message };
  return { code: FAILURE, message: errorMessage(error), data: { code: errorCode(error) ?? 'EIO' } };
}

/** The error an answer carries, as a PolyError. */
function remoteError(value: unknown): PolyError {
  const error = isRecord(value) ? value : {};
  const data = isRecord(error['data']) ? error['data'] : {};
  const code = typeof data['code'] === 'string' ? data['code'] : 'EPROTO';
  return new PolyError(code, typeof error['message'] === 'string' ? error['message'] : 'unreadable error');
}

/** One connection. `Remote` types what the other end answers. */
export class RpcPeer<Remote extends MethodMap = MethodMap> {
  readonly socket: Socket;
  private readonly handlers: PeerHandlers;
  private readonly pending = new Map<number, Pending>();
  /** Parts of the line that is arriving. */
  private partial: Buffer[] = [];
  private partialLength = 0;
  private inFlight = 0;
  private nextId = 1;
  private readonly decoder = new TextDecoder('utf-8', { fatal: true });

  constructor(socket: Socket, handlers: PeerHandlers = {}) {
    this.socket = socket;
    this.handlers = handlers;
    socket.on('data', (chunk: Buffer) => {
      this.receive(chunk);
    });
    // 'close' follows; the error itself says no more than that the peer went away.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.closed();
    });
  }

  get open(): boolean {
    return !this.socket.destroyed && this.socket.writable;
  }

  /** Asks the other end. Rejects with its PolyError, ECONNRESET when the connection ends, ETIMEDOUT after timeoutMs. */
  request<M extends keyof Remote & string>(
    method: M,
    params: Remote[M]['params'],
    timeoutMs = 0,
  ): Promise<Remote[M]['result']> {
    return new Promise((resolve, reject) => {
      if (!this.open) {
        reject(new PolyError('ECONNRESET', `${method}: connection closed`));
        return;
      }
      const id = this.nextId++;
      const timer =
        timeoutMs > 0
          ? setTimeout(() => {
              this.pending.delete(id);
              reject(new PolyError('ETIMEDOUT', `${method}: no answer within ${String(timeoutMs)} ms`));
            }, timeoutMs)
          : undefined;
      this.pending.set(id, { resolve, reject, timer });
      this.send({ jsonrpc: '2.0', id, method, params });
    });
  }

  notify(method: string, params: unknown): void {
    this.send({ jsonrpc: '2.0', method, params });
  }

  /** Sends what is queued, then closes. */
  end(): void {
    this.socket.end();
  }

  /** Refuses a connection with one error line. */
  refuse(error: unknown): void {
    this.send({ jsonrpc: '2.0', id: null, error: failure(error) });
    this.socket.destroySoon();
  }

  private send(message: Message): void {
    if (!this.open) return;
    this.socket.write(JSON.stringify(message) + '\n');
    if (this.socket.writableLength > MAX_UNSENT) this.socket.destroy();
  }

  private receive(chunk: Buffer): void {
    let rest = chunk;
    for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
      if (this.partialLength + end > MAX_LINE) break;
      const line =
        this.partial.length > 0
          ? Buffer.concat([...this.partial, rest.subarray(0, end)])
          : rest.subarray(0, end);
      this.partial = [];
      this.partialLength = 0;
      rest = rest.subarray(end + 1);
      this.line(line);
      if (!this.open) return;
    }
    if (rest.length === 0) return;
    this.partial.push(rest);
    this.partialLength += rest.length;
    if (this.partialLength > MAX_LINE) {
      this.partial = [];
      this.socket.pause();
      this.refuse(new PolyError('EMSGSIZE', `line longer than ${String(MAX_LINE)} bytes`));
    } else if (this.partial.length > 256) {
      this.partial = [Buffer.concat(this.partial)];
    }
  }

  private line(line: Buffer): void {
    if (line.length === 0) return;
    let message: unknown;
    try {
      message = JSON.parse(this.decoder.decode(line));
    } catch {
      this.reject(null, PARSE_ERROR, 'not a line of JSON');
      return;
    }
    if (!isRecord(message) || message['jsonrpc'] !== '2.0') {
      this.reject(null, INVALID_REQUEST, 'not a JSON-RPC 2.0 message');
    } else if (typeof message['method'] === 'string') {
      this.call(message['method'], message);
    } else if ('result' in message || 'error' in message) {
      this.answer(message);
    } else {
      this.reject(
        isId(message['id']) ? message['id'] : null,
        INVALID_REQUEST,
        'neither a request nor an answer',
      );
    }
  }

  private reject(id: Id, code: number, message: string): void {
    this.send({ jsonrpc: '2.0', id, error: { code, message } });
  }

  private call(method: string, message: Record<string, unknown>): void {
    const id = message['id'];
    if (id === undefined) {
      this.handlers.onNotification?.(method, message['params'], this);
    } else if (!isId(id)) {
      this.reject(null, INVALID_REQUEST, 'id must be a string, a number or null');
    } else {
      void this.serve(id, method, message['params']);
    }
  }

  private async serve(id: Id, method: string, params: unknown): Promise<void> {
    if (++this.inFlight >= MAX_IN_FLIGHT) this.socket.pause();
    try {
      if (!this.handlers.onRequest) throw new UnknownMethod(method);
      const result = await this.handlers.onRequest(method, params, this);
      this.send({ jsonrpc: '2.0', id, result: result === undefined ? {} : result });
    } catch (error) {
      this.send({ jsonrpc: '2.0', id, error: failure(error) });
    }
    if (this.inFlight-- === MAX_IN_FLIGHT) this.socket.resume();
  }

  private answer(message: Record<string, unknown>): void {
    const id = message['id'];
    const pending = typeof id === 'number' ? this.pending.get(id) : undefined;
    if (pending === undefined) {
      // An error without an id is about the connection as a whole (refused, line too long).
      if (id === null && 'error' in message) this.failAll(remoteError(message['error']));
      return;
    }
    this.pending.delete(id as number);
    clearTimeout(pending.timer);
    if ('error' in message) pending.reject(remoteError(message['error']));
    else pending.resolve(message['result']);
  }

  private failAll(error: Error): void {
    for (const pending of this.pending.values()) {
      clearTimeout(pending.timer);
      pending.reject(error);
    }
    this.pending.clear();
  }

  private closed(): void {
    this.failAll(new PolyError('ECONNRESET', 'connection closed'));
    this.handlers.onClose?.(this);
  }
}

/** The socket's file descriptor, for SO_PEERCRED. */
export function socketFd(socket: Socket): number {
  const handle = (socket as unknown as { _handle?: { fd?: number } | null })._handle;
  return handle?.fd ?? -1;
}

/** Connects to the peer that listens on `path`. Errors keep their code: ENOENT and ECONNREFUSED mean nobody is there. */
export function connectRpc<Remote extends MethodMap = MethodMap>(
  path: string,
  handlers: PeerHandlers = {},
): Promise<RpcPeer<Remote>> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.removeListener('error', reject);
      resolve(new RpcPeer<Remote>(socket, handlers));
    });
  });
}

export interface ListenOptions {
  /** Handlers for a new connection, or a throw to refuse it. */
  accept: (socket: Socket) => PeerHandlers;
  onPeer?: (peer: RpcPeer) => void;
  /** Connections beyond these are closed at once. */
  maxConnections: number;
}

/** Listens on `path`; a stale socket file must have been removed. */
export function listenRpc(path: string, options: ListenOptions): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => {
      let handlers: PeerHandlers;
      try {
        handlers = options.accept(socket);
      } catch (error) {
        new RpcPeer(socket).refuse(error);
        return;
      }
      const peer = new RpcPeer(socket, handlers);
      options.onPeer?.(peer);
    });
    server.maxConnections = options.maxConnections;
    server.once('error', reject);
    server.listen(path, () => {
      server.removeListener('error', reject);
      try {
        // Whatever the umask was. Until now accept() alone kept others out, as it does everywhere.
        chmodSync(path, 0o600);
        resolve(server);
      } catch (error) {
        server.close();
        reject(withContext(path, error));
      }
    });
  });
}

/**
 * Errors a user sees: one clear line and an errno name (or EUSAGE for bad input that has no errno).
 * No dependencies: the CLI, polyd and the service host all import this.
 */
export class PolyError extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.name = 'PolyError';
    this.code = code;
  }
}

/** The errno name an error carries, or undefined. */
export function errorCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}

/** One line for any thrown value. */
export function errorMessage(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return text.replace(/\s*\n\s*/g, '; ');
}

/** The same error with its context in front, errno name kept. */
export function withContext(context: string, error: unknown): PolyError {
  return new PolyError(errorCode(error) ?? 'EIO', `${context}: ${errorMessage(error)}`);
}

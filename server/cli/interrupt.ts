/** Ctrl-C and termination while something is half done: the wait ends, so that it can be undone. */
import { PolyError } from '../errors.ts';

export class Interruption {
  private readonly promise: Promise<never>;
  private reject: (error: Error) => void = () => undefined;
  private readonly onSignal = (): void => {
    this.reject(new PolyError('EINTR', 'interrupted'));
  };

  constructor() {
    this.promise = new Promise<never>((_, reject) => {
      this.reject = reject;
    });
    this.promise.catch(() => undefined);
    process.on('SIGINT', this.onSignal).on('SIGTERM', this.onSignal);
  }

  /** `work`, or the interruption if that comes first. */
  race<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.promise]);
  }

  end(): void {
    process.off('SIGINT', this.onSignal).off('SIGTERM', this.onSignal);
  }
}

/** A reader of an organization's audit events that goes by the cursor, and asks again where the last page ended. */
import { page } from '../fixtures.ts';
import type { Client } from '../fixtures.ts';

const PAGE_SIZE = 3;

export class Follower {
  /** The ids of all events that it has read, in its order. */
  readonly read: unknown[] = [];
  private readonly client: Client;
  private cursor = '';
  private readOfPage = 0;

  constructor(client: Client) {
    this.client = client;
  }

  /** Reads to the end. What was read of a page before must still be its beginning. */
  async poll(): Promise<void> {
    for (;;) {
      const { data, next_cursor } = await page(this.client, `/api/audit-events?page_size=${PAGE_SIZE}${this.cursor}`);
      const ids = data.map(({ event_id }) => event_id);
      const before = this.read.slice(this.read.length - this.readOfPage);
      if (before.some((id, place) => id !== ids[place]))
        throw new Error('what a reader has read of a page has changed');
      this.read.push(...ids.slice(this.readOfPage));
      this.readOfPage = ids.length;
      if (next_cursor === null) return;
      this.cursor = `&cursor=${next_cursor}`;
      this.readOfPage = 0;
    }
  }
}

/**
 * An example of a Worker that receives events. Each comes at least once, in no promised order. It is stored under its id,
 * so a repeat changes nothing; then comes the answer, for which the sender waits; and then what the event leads to.
 */
import { verifyWebhook, WebhookVerificationError } from '../../src/client/client.ts';
import type { WebhookEvent } from '../../src/client/client.ts';

interface Env {
  DB: D1Database;
  /** The endpoint's secret; while it is being rotated, the old and the new one, with a space between. */
  WEBHOOK_SECRETS: string;
}

/** Stands for your own work. */
async function act({ type, data }: WebhookEvent): Promise<void> {
  console.log(`${type} ${data.target_id}`);
}

export default {
  async fetch(request, { DB, WEBHOOK_SECRETS }, context) {
    try {
      const event = await verifyWebhook(request, WEBHOOK_SECRETS.split(' '));
      const [, stored] = await DB.batch([
        DB.prepare('CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, event TEXT)'),
        DB.prepare('INSERT OR IGNORE INTO events VALUES (?, ?)').bind(event.id, JSON.stringify(event)),
      ]);
      const isNew = stored?.meta.changes === 1;
      if (isNew) context.waitUntil(act(event));
      return Response.json({ is_new: isNew });
    } catch (error) {
      if (!(error instanceof WebhookVerificationError)) throw error;
      return Response.json({ detail: error.message }, { status: 400 });
    }
  },
} satisfies ExportedHandler<Env>;

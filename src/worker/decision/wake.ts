import type { Bindings } from '../env.ts';

/** The longest that a message of Queues can wait. */
const MAX_DELAY_SECONDS = 12 * 60 * 60;

/**
 * Says that an organization may have events to send (webhooks/deliver.ts). A message that is lost costs a minute, because the
 * cron looks too (webhooks/sweep.ts).
 */
export async function wakeDelivery(
  { WEBHOOK_WAKEUPS }: Bindings,
  organization_id: string,
  delaySeconds = 0,
): Promise<void> {
  await WEBHOOK_WAKEUPS.send({ organization_id }, { delaySeconds: Math.min(delaySeconds, MAX_DELAY_SECONDS) });
}

import type { Bindings } from '../env.ts';

/** What is woken: an organization's endpoints, or one of them. */
export interface WakeUp {
  organization_id: string;
  endpoint_id?: string | undefined;
}

/**
 * Says that there may be events to send (webhooks/deliver.ts). A message that is lost costs a minute, because the cron looks
 * too (webhooks/sweep.ts).
 *
 * @throws what Queues throws
 */
export async function wakeDelivery({ WEBHOOK_WAKEUPS }: Bindings, woken: WakeUp, delaySeconds = 0): Promise<void> {
  await WEBHOOK_WAKEUPS.send(woken, { delaySeconds });
}

/** The calls of the journey. Each generated client has a file that makes them, so that its types are compiled too. */
export interface Calls {
  /** @returns its id */
  createIntegration: (name: string) => Promise<string>;
  /** @returns its id */
  importNumber: (integration_id: string, phone_number: string) => Promise<string>;
  reassign: (phone_number_id: string, integration_id: string) => Promise<{ status: number }>;
  /** @returns for `integration_in_use`, the numbers that are in the way */
  deleteIntegration: (integration_id: string) => Promise<{ status: number; references?: string[] }>;
}

export type MakeCalls = (server: { url: string; apiKey: string; organizationId: string }) => Calls;

export const credentials = {
  provider: 'twilio',
  account_sid: 'AC0123456789abcdef0123456789abcdef',
  auth_token: 'plaintext-auth-token',
} as const;

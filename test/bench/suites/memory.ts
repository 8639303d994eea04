import type { Findings } from '../report.ts'; export async function memory(): Promise<Findings> { return { tables: [], verdicts: [] }; }

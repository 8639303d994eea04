import { defineConfig } from 'drizzle-kit';

export default defineConfig({ dialect: 'sqlite', schema: './src/worker/d1/constraints.ts', out: './migrations' });

import { defineConfig } from 'drizzle-kit';

export default defineConfig({ dialect: 'sqlite', schema: './src/dev/migrated-schema.ts', out: './migrations' });

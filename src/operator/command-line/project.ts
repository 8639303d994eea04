import { resolve } from 'node:path';

export const projectDirectory = resolve(import.meta.dirname, '../../..');

/** `npm run dev`, as a developer types it. The tests follow one another: each goes on where the last one left off. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import * as z from 'zod';
import { openLocal } from '../../src/cli/platform.ts';
import { ciphertexts, removeDirectory, rows, run, startDev, temporaryDirectory } from '../conformance/server.ts';

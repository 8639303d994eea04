/** Patchbay itself. */
import worker from '../../../src/worker/index.ts';
import { modelled } from './model.ts';

export default modelled(worker.fetch);

/**
 * Has Stryker ask all tests about each mutant, not those alone that execute it: a statement is compiled by the first test
 * that needs it, and all that follow depend on it.
 */
import { beforeEach } from 'vitest';

// To Stryker, what is executed outside of tests matters to all of them.
beforeEach(() => {
  Reflect.deleteProperty(Reflect.get(globalThis, '__stryker__'), 'currentTestId');
});

/** The operator's commands: the scripts of package.json that are in src/operator/commands. */
import packageJson from '../../package.json' with { type: 'json' };

export const commands = Object.entries(packageJson.scripts)
  .filter(([, line]) => line.includes(' src/operator/commands/'))
  .map(([script]) => script);

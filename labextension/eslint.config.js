import js from '@eslint/js';
import prettier from 'eslint-config-prettier';
import hooks from 'eslint-plugin-react-hooks';
import globals from 'globals';
import typescript from 'typescript-eslint';

export default [
  { ignores: ['lib/', 'prebuilt/', 'node_modules/'] },
  js.configs.recommended,
  ...typescript.configs.strict,
  {
    files: ['src/**'],
    plugins: { 'react-hooks': hooks },
    rules: {
      ...hooks.configs.recommended.rules,
      'max-lines': ['error', { max: 300 }],
      '@typescript-eslint/explicit-module-boundary-types': 'error'
    }
  },
  { files: ['tests/**', '*.js'], languageOptions: { globals: globals.node } },
  prettier
];

/** Tests run from dist/ (npx tsc -p . first). One file at a time: many of them start daemons and measure them. */
export default {
  files: ['test/**/*.test.ts'],
  typescript: { rewritePaths: { 'test/': 'dist/test/' }, compile: false },
  concurrency: 1,
  timeout: '90s',
};

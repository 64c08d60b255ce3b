import { app } from '@azure/functions';

app.http('hello', { handler: async () => ({ body: 'hello from a module' }) });

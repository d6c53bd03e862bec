/** The global function of swagger-ui-bundle.js, with the options that docs/start.js uses. */
declare function SwaggerUIBundle(options: {
  url: string;
  dom_id: string;
  deepLinking: boolean;
  validatorUrl: string | null;
}): void;

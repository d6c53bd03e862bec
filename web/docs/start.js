// Swagger UI, on the description beside it; validatorUrl is null so that no outside address is asked for a badge.
SwaggerUIBundle({
  url: "openapi.yaml",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
});

// Show openapi.yaml in Swagger UI. validatorUrl is null, because Swagger UI otherwise loads a badge from another site.
SwaggerUIBundle({
  url: "openapi.yaml",
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null,
});

"""The page at `/`, and the API that it reads.

routes       all routes
openapi      the description of the collector's HTTP interface
tables       panels as JSON and CSV
plotly       the charts' JavaScript, out of the installed package
static/      the page itself: HTML, CSS and JavaScript modules, without a build step
"""

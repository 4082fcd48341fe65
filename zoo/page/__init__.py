"""A map as one HTML page that needs nothing else: image or hillshade, probability, landslides and the table of their attributes.

from zoo.page import write_page

write_page("prob.tif", "prob.html", image="ortho.tif", dem="dem.tif", inventory="slides.gpkg")
"""

from zoo.page.page import require_page, write_page

__all__ = ["require_page", "write_page"]

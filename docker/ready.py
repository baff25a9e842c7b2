"""The images' health check: exit 0 when the server in this container says that it is ready.

Standard library only, because the slim images have no curl. READY_PATH names the route, METABOLISM_PORT the port.
"""

import os
import sys
from urllib.error import URLError
from urllib.request import urlopen

url = f"http://127.0.0.1:{os.environ.get('METABOLISM_PORT', '8000')}{os.environ.get('READY_PATH', '/health/ready')}"
try:
    with urlopen(url, timeout=4) as response:
        print(response.read(2000).decode(errors="replace"))
except (URLError, OSError) as error:
    print(f"{url}: {error}")
    sys.exit(1)

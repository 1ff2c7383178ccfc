import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.WebSocket;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.CountDownLatch;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** java Listen.java URL TOKEN: the JDK's WebSocket, prints the `n` of each event and comes back with its cursor. */
public class Listen {
    static final Pattern EVENT =
        Pattern.compile("\"channel\":\"([^\"]+)\",\"epoch\":(\\d+),\"seq\":(\\d+).*\"n\":(\\d+)");
    static String after = "";

    static class Listener implements WebSocket.Listener {
        final CountDownLatch ended = new CountDownLatch(1);
        final StringBuilder text = new StringBuilder();

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence data, boolean last) {
            text.append(data);
            if (last) {
                Matcher event = EVENT.matcher(text);
                if (event.find()) {
                    after = "?after=" + event.group(1) + "=" + event.group(2) + "." + event.group(3);
                    System.out.println(event.group(4));
                }
                text.setLength(0);
            }
            socket.request(1);
            return null;
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            ended.countDown();
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            ended.countDown();
        }
    }

    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newHttpClient();
        while (true) {
            Listener listener = new Listener();
            try {
                client.newWebSocketBuilder()
                    .subprotocols("cloudevents.json")
                    .header("Authorization", "Bearer " + args[1])
                    .buildAsync(URI.create(args[0] + after), listener)
                    .join();
                listener.ended.await();
            } catch (java.util.concurrent.CompletionException notThere) {
                // again
            }
            Thread.sleep(200);
        }
    }
}
